// SPDX-License-Identifier: Apache-2.0

import VMBus

/// A client and a server that exchange their messages, with devices that answer at once.
///
/// What is told to the guest's drivers and to the host's devices is kept in order.
struct ControlPair {
  var client: ControlClient
  var server: ControlServer
  var origin = MessageOrigin.untrusted
  var told: [ClientAction] = []
  var asked: [ServerAction] = []
  /// Devices leave requests unanswered while false.
  var devicesAnswer = true
  /// What a device makes of an open.
  var openStatus = ControlStatus.success
  /// Each message that went either way.
  var messages: [OutgoingMessage] = []

  init(
    client: ClientConfiguration = ClientConfiguration(),
    server: ServerConfiguration = ServerConfiguration()
  ) {
    self.client = ControlClient(client)
    self.server = ControlServer(server)
  }

  mutating func run(_ actions: [ClientAction]) {
    for action in actions {
      if case .post(let message, _) = action {
        messages.append(message)
        run(server.receive(message.bytes, origin: origin))
      } else {
        told.append(action)
      }
    }
  }

  mutating func run(_ actions: [ServerAction]) {
    for action in actions {
      if case .post(let message, _) = action {
        messages.append(message)
        run(client.receive(message.bytes, origin: origin))
        continue
      }
      asked.append(action)
      guard devicesAnswer else { continue }
      switch action {
      case .open(let request): run(server.openCompleted(request.channel, openStatus))
      case .close(let id): run(server.closeCompleted(id))
      case .createGPADL(_, let id): run(server.gpadlCompleted(id, .success))
      case .tearDownGPADL(_, let id): run(server.gpadlTornDown(id))
      case .modify(let id, _): run(server.modifyCompleted(id, .success))
      default: break
      }
    }
  }

  /// What was told and asked since the last call.
  mutating func take() -> (told: [ClientAction], asked: [ServerAction]) {
    defer { (told, asked, messages) = ([], [], []) }
    return (told, asked)
  }

  mutating func connect() throws {
    run(try client.connect())
  }

  @discardableResult
  mutating func offer(_ offer: OfferChannel) throws -> ChannelID {
    let (id, actions) = try server.offer(offer)
    run(actions)
    return id
  }

  mutating func createRing(_ channel: ChannelID, pages: Int = 8) throws -> GPADLID {
    let gpns = (0..<pages).map { 0x100 + UInt64($0) }
    let range = GPADLRange(byteCount: UInt32(pages * 4096), gpns: gpns)
    let (id, actions) = try client.createGPADL(channel, ranges: [range])
    run(actions)
    return id
  }

  mutating func open(_ channel: ChannelID, ring: GPADLID, offset: UInt32 = 4) throws {
    run(try client.open(channel, OpenParameters(ring: ring, downstreamPageOffset: offset)))
  }

  var brokenInvariant: String? { client.checkInvariants() ?? server.checkInvariants() }
}

extension OfferChannel {
  /// An offer for tests; each instance number is another device.
  static func test(
    _ instance: UInt8 = 1, subchannel: UInt16 = 0, flags: OfferFlags = [], id: ChannelID = 0
  ) -> OfferChannel {
    OfferChannel {
      $0.interfaceID = DeviceClass.scsi.guid
      $0.instanceID.wireBytes[0] = instance
      $0.subchannelIndex = subchannel
      $0.flags = flags
      $0.channelID = id
      $0.connectionID = id == 0 ? 0 : OfferChannel.defaultConnectionID(id)
    }
  }
}

extension ControlClient {
  mutating func receive(
    _ message: ControlMessage, origin: MessageOrigin = .untrusted
  ) -> [ClientAction] {
    receive(OutgoingMessage(message).bytes, origin: origin)
  }
}

extension ControlServer {
  mutating func receive(
    _ message: ControlMessage, origin: MessageOrigin = .untrusted
  ) -> [ServerAction] {
    receive(OutgoingMessage(message).bytes, origin: origin)
  }
}
