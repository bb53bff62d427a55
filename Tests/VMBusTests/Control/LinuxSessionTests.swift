// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@Suite struct LinuxSessionTests {
  static var session: [[UInt8]] { LinuxSession.messages.map(LinuxSession.bytes) }

  static func message(_ index: Int) throws -> ControlMessage {
    try ControlMessage(parsing: session[index], version: .v5_3)
  }

  @Test func theContact() throws {
    guard case .initiateContact(let contact, clientID: nil) = try Self.message(0) else {
      Issue.record("no contact")
      return
    }
    #expect(contact.versionRequested == .v5_3 && contact.targetMessageVP == 0)
    #expect(contact.targetInfo.sint == 2 && contact.targetInfo.vtl == 0)
    #expect(contact.targetInfo.features.isEmpty)
    #expect(
      contact.monitorPages
        == MonitorPages(parentToChild: 0x226_5000, childToParent: 0x226_4000))
  }

  @Test func theRing() throws {
    guard case .gpadlHeader(let header, let words) = try Self.message(2),
      case .gpadlBody(let body, let more) = try Self.message(3),
      case .gpadlBody(_, let rest) = try Self.message(4),
      case .openChannel(let open, nil) = try Self.message(5)
    else {
      Issue.record("other messages")
      return
    }
    #expect(header.channelID == 1 && header.gpadlID == 0xE_1E10)
    // One range: its length and offset, then 64 page numbers.
    #expect(words.count == 27 && more.count == 28 && rest.count == 10)
    #expect(words.first == 0x4_0000)
    #expect(Array(words.dropFirst()) + more + rest == Array(0xFC40...0xFC7F))
    #expect(body.gpadlID == header.gpadlID && open.ringGPADL == header.gpadlID)
    #expect(open.openID == 1 && open.downstreamPageOffset == 32 && open.targetVP == 0)
  }

  /// What our client would post differs in nothing but what it leaves out at the end.
  @Test func ourBytesAreLinuxs() throws {
    for (index, bytes) in Self.session.enumerated() {
      let ours = OutgoingMessage(try Self.message(index)).array
      #expect(ours.count <= bytes.count)
      #expect(ours == Array(bytes.prefix(ours.count)), "message \(index)")
      #expect(bytes.dropFirst(ours.count).allSatisfy { $0 == 0 }, "message \(index)")
    }
  }

  /// The server takes all of it, in its order, and answers each request.
  @Test func theServerTakesIt() throws {
    var server = ControlServer()
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.scsi.guid
    offer.instanceID = "5d15c000-0000-4000-8000-000000000000"
    let (primary, _) = try server.offer(offer)
    var answers: [MessageType] = []
    var opened: [ChannelID] = []
    for message in Self.session {
      var actions = server.receive(unsafe message.span.bytes, origin: .untrusted)
      while !actions.isEmpty {
        switch actions.removeFirst() {
        case .post(let answer, _): answers.append(answer.type)
        case .createGPADL(_, let gpadl): actions += server.gpadlCompleted(gpadl, .success)
        case .tearDownGPADL(_, let gpadl): actions += server.gpadlTornDown(gpadl)
        case .open(let request):
          opened.append(request.channel)
          actions += server.openCompleted(request.channel, .success)
          if request.channel == primary {
            // Its storage driver has asked for a second channel.
            offer.subchannelIndex = 1
            actions += try server.offer(offer).actions
          }
        case .close(let channel):
          actions += server.closeCompleted(channel)
          if channel == primary, let second = server.offers.last?.channelID {
            actions += try server.revoke(second)
          }
        case .refused(let error): Issue.record("refused: \(error)")
        default: break
        }
      }
      #expect(server.checkInvariants() == nil)
    }
    #expect(opened == [1, 2])
    #expect(
      answers == [
        .versionResponse, .offerChannel, .allOffersDelivered, .gpadlCreated, .openChannelResult,
        .offerChannel, .gpadlCreated, .openChannelResult, .gpadlTorndown,
        .rescindChannelOffer, .gpadlTorndown,
      ])
  }
}
