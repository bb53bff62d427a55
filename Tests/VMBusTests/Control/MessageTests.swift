// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

/// Golden bytes: each written by hand from the offsets that the protocol gives.
@Suite struct MessageTests {
  struct Golden: Sendable, CustomStringConvertible {
    let message: ControlMessage
    let bytes: [UInt8]
    let version: ProtocolVersion?
    let features: FeatureFlags

    init(
      _ message: ControlMessage, _ bytes: [UInt8], _ version: ProtocolVersion? = .v6_0,
      _ features: FeatureFlags = []
    ) {
      self.message = message
      self.bytes = bytes
      self.version = version
      self.features = features
    }

    var description: String { "\(message.type), \(bytes.count) bytes" }
  }

  static func header(_ type: UInt8) -> [UInt8] { [type, 0, 0, 0, 0, 0, 0, 0] }
  static func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }
  static let scsi: [UInt8] = [
    0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f,
  ]
  static let instance: [UInt8] = [
    0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
  ]
  static let instanceID: GUID = "00112233-4455-6677-8899-aabbccddeeff"
  static let counting = (0..<120).map { UInt8($0 + 1) }

  static let golden: [Golden] = [
    Golden(
      .offerChannel(
        OfferChannel {
          $0.interfaceID = DeviceClass.scsi.guid
          $0.instanceID = instanceID
          $0.flags = [.confidentialRingBuffer, .tlnpiProvider]
          $0.mmioMegabytes = 0x0102
          $0.userDefined = UserData(counting)
          $0.subchannelIndex = 3
          $0.mmioMegabytesOptional = 0x0405
          $0.channelID = 0x7FF
          $0.monitorID = 0x41
          $0.monitorAllocated = 1
          $0.isDedicated = 1
          $0.connectionID = 0x2_27FF
        }),
      header(1) + scsi + instance + zeros(16) + [0x02, 0x20, 0x02, 0x01] + counting
        + [3, 0, 0x05, 0x04, 0xFF, 0x07, 0, 0, 0x41, 1, 1, 0, 0xFF, 0x27, 0x02, 0]),
    Golden(
      .rescindChannelOffer(RescindChannelOffer { $0.channelID = 5 }), header(2) + [5, 0, 0, 0]),
    Golden(.requestOffers, header(3)),
    Golden(.allOffersDelivered, header(4)),
    Golden(.openChannel(open, nil), header(5) + openBytes),
    Golden(
      .openChannel(
        open,
        SignalParameters {
          $0.connectionID = 0x1122_3344
          $0.eventFlag = 0x0708
          $0.flags = 1
        }),
      header(5) + openBytes + [0x44, 0x33, 0x22, 0x11, 0x08, 0x07, 1, 0], .v6_0,
      .guestSpecifiedSignalParameters),
    Golden(
      .openChannelResult(
        OpenChannelResult {
          $0.channelID = 5
          $0.openID = 6
          $0.status = .unsuccessful
        }), header(6) + [5, 0, 0, 0, 6, 0, 0, 0, 0xFF, 0xFF, 0, 0x80]),
    Golden(.closeChannel(CloseChannel { $0.channelID = 5 }), header(7) + [5, 0, 0, 0]),
    Golden(
      .gpadlHeader(
        GPADLHeader {
          $0.channelID = 5
          $0.gpadlID = 1
          $0.length = 24
          $0.rangeCount = 1
        }, [0x0000_0002_0000_1000, 0x1234, 0x5678_9ABC_DEF0]),
      header(8) + [5, 0, 0, 0, 1, 0, 0, 0, 24, 0, 1, 0]
        + [0, 0x10, 0, 0, 2, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0]
        + [0xF0, 0xDE, 0xBC, 0x9A, 0x78, 0x56, 0, 0]),
    Golden(
      .gpadlBody(GPADLBody { $0.gpadlID = 1 }, [0x0102_0304_0506_0708]),
      header(9) + [0, 0, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]),
    Golden(
      .gpadlCreated(
        GPADLCreated {
          $0.channelID = 5
          $0.gpadlID = 1
          $0.status = .unsuccessful
        }), header(10) + [5, 0, 0, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0, 0x80]),
    Golden(
      .gpadlTeardown(
        GPADLTeardown {
          $0.channelID = 5
          $0.gpadlID = 1
        }), header(11) + [5, 0, 0, 0, 1, 0, 0, 0]),
    Golden(.gpadlTorndown(GPADLTorndown { $0.gpadlID = 1 }), header(12) + [1, 0, 0, 0]),
    Golden(.relIDReleased(RelIDReleased { $0.channelID = 5 }), header(13) + [5, 0, 0, 0]),
    Golden(.initiateContact(contact(flags: []), clientID: nil), header(14) + contactBytes(0), nil),
    Golden(
      .initiateContact(contact(flags: .clientID), clientID: instanceID),
      header(14) + contactBytes(8) + instance, nil),
    Golden(
      .versionResponse(VersionResponse { $0.connectionState = .failedLowResources }, nil, nil),
      header(15) + [0, 1, 0, 0, 0, 0, 0, 0], nil),
    Golden(
      .versionResponse(response, [.pauseResume, .confidentialChannels], nil),
      header(15) + [1, 0, 0, 0, 0x74, 0, 0x80, 0, 0x30, 0, 0, 0]),
    Golden(
      .versionResponse(
        response, .serverSpecifiedMonitorPages,
        MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)),
      header(15) + [1, 0, 0, 0, 0x74, 0, 0x80, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]
        + [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]),
    Golden(.unload, header(16)),
    Golden(.unloadComplete, header(17)),
    Golden(
      .openReservedChannel(
        OpenReservedChannel {
          $0.channelID = 1
          $0.targetVP = 2
          $0.targetSINT = 3
          $0.ringGPADL = 4
          $0.downstreamPageOffset = 5
        }), header(18) + [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]),
    Golden(
      .closeReservedChannel(
        CloseReservedChannel {
          $0.channelID = 1
          $0.targetVP = 2
          $0.targetSINT = 3
        }), header(19) + [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0], nil),
    Golden(
      .closeReservedChannelResponse(CloseReservedChannelResponse { $0.channelID = 1 }),
      header(20) + [1, 0, 0, 0]),
    Golden(.tlConnectRequest(tlRequest, siloID: nil), header(21) + instance + scsi),
    Golden(
      .tlConnectRequest(tlRequest, siloID: instanceID), header(21) + instance + scsi + instance),
    Golden(
      .modifyChannel(
        ModifyChannel {
          $0.channelID = 5
          $0.targetVP = 7
        }), header(22) + [5, 0, 0, 0, 7, 0, 0, 0]),
    Golden(
      .tlConnectResult(
        TLConnectResult {
          $0.endpointID = instanceID
          $0.serviceID = DeviceClass.scsi.guid
          $0.status = .connectionRefused
        }), header(23) + instance + scsi + [0x36, 0x02, 0, 0xC0]),
    Golden(
      .modifyChannelResponse(ModifyChannelResponse { $0.channelID = 5 }),
      header(24) + [5, 0, 0, 0, 0, 0, 0, 0]),
    Golden(
      .modifyConnection(
        ModifyConnection {
          $0.monitorPages = MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)
        }),
      header(25) + [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0], .v6_0, .modifyConnection),
    Golden(
      .modifyConnectionResponse(
        ModifyConnectionResponse { $0.connectionState = .failedUnknownFailure }),
      header(26) + [2], .v6_0, .modifyConnection),
    Golden(.pause, header(27), .v6_0, .pauseResume),
    Golden(.pauseResponse, header(28), .v6_0, .pauseResume),
    Golden(.resume, header(29), .v6_0, .pauseResume),
  ]

  static let open = OpenChannel {
    $0.channelID = 5
    $0.openID = 6
    $0.ringGPADL = 0x8000_0005
    $0.targetVP = OpenChannel.interruptsDisabledVP
    $0.downstreamPageOffset = 17
    $0.userData = UserData(counting)
  }
  static let openBytes: [UInt8] =
    [5, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0, 0x80, 0xFF, 0xFF, 0xFF, 0xFF, 17, 0, 0, 0] + counting

  static func contact(flags: FeatureFlags) -> InitiateContact {
    InitiateContact {
      $0.versionRequested = .v6_0
      $0.targetMessageVP = 3
      $0.interruptPageOrTargetInfo = TargetInfo(sint: 2, vtl: 1, features: flags).rawValue
      $0.monitorPages = MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)
    }
  }
  static func contactBytes(_ flags: UInt8) -> [UInt8] {
    [0, 0, 6, 0, 3, 0, 0, 0, 2, 1, 0, 0, flags, 0, 0, 0]
      + [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]
  }
  static let response = VersionResponse {
    $0.versionSupported = 1
    $0.selectedVersionOrConnectionID = 0x80_0074
  }
  static let tlRequest = TLConnectRequest {
    $0.endpointID = instanceID
    $0.serviceID = DeviceClass.scsi.guid
  }

  @Test func eachTypeHasGoldenBytes() {
    let types = Set(Self.golden.map(\.message.type.rawValue))
    #expect(types == Set(1...29))
  }

  @Test(arguments: golden)
  func goldenBytesAreWrittenAndRead(_ golden: Golden) throws {
    #expect(OutgoingMessage(golden.message).array == golden.bytes)
    #expect(OutgoingMessage(golden.message).type == golden.message.type)
    let parsed = try ControlMessage(
      parsing: golden.bytes, version: golden.version, features: golden.features)
    #expect(parsed == golden.message)
  }

  @Test(arguments: golden)
  func oneByteLessIsTooShort(_ golden: Golden) throws {
    let short = Array(golden.bytes.dropLast())
    let row = try #require(ControlMessageTable.row(golden.message.type))
    do {
      // A shorter form of the same message, or fewer words of a GPADL, may remain.
      let parsed = try ControlMessage(
        parsing: short, version: golden.version, features: golden.features)
      #expect(parsed != golden.message)
      #expect(short.count - 8 > row.sizes[0])
    } catch {
      guard case .tooShort(_, let needed, let found) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(needed > found)
    }
  }

  @Test(arguments: golden)
  func theTableTellsTheSize(_ golden: Golden) throws {
    let row = try #require(ControlMessageTable.row(golden.message.type))
    let isGPADL = [.gpadlHeader, .gpadlBody].contains(golden.message.type)
    #expect(isGPADL || row.sizes.contains(golden.bytes.count - 8))
    #expect(row.type == golden.message.type)
  }

  /// Guests such as UEFI always post the maximum.
  @Test(arguments: golden)
  func longerMessagesAreRead(_ golden: Golden) throws {
    let padded = golden.bytes + Self.zeros(240 - golden.bytes.count)
    let parsed = try ControlMessage(
      parsing: padded, version: golden.version, features: golden.features)
    switch (golden.message, parsed) {
    case (.gpadlHeader(let sent, let words), .gpadlHeader(let header, let found)):
      #expect(header == sent)
      #expect(found.count == 27 && found.starts(with: words))
    case (.gpadlBody(let sent, let words), .gpadlBody(let body, let found)):
      #expect(body == sent)
      #expect(found.count == 28 && found.starts(with: words))
    case (.tlConnectRequest(let sent, nil), .tlConnectRequest(let request, let silo)):
      #expect(request == sent && silo == GUID())
    default:
      // Features of an answer count only where the version in question has them.
      #expect(parsed == golden.message)
    }
  }

  // The vectors that the reference has from another implementation.
  @Test func publishedVectors() throws {
    #expect(
      OutgoingMessage(.closeChannel(CloseChannel { $0.channelID = 5 })).array
        == [7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])
    #expect(OutgoingMessage(.unload).array == [0x10, 0, 0, 0, 0, 0, 0, 0])
    let header: [UInt8] =
      [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 7, 0, 6, 0, 0xA, 0xB, 0xC, 0xD]
    let expected = GPADLHeader {
      $0.channelID = 5
      $0.gpadlID = 1
      $0.length = 7
      $0.rangeCount = 6
    }
    #expect(try ControlMessage(parsing: header, version: .v4_0) == .gpadlHeader(expected, []))
  }

  @Test func signalParametersGoWithVersionAndFeature() throws {
    let long = Self.header(5) + Self.openBytes + [1, 0, 0, 0, 2, 0, 0, 0]
    let features: FeatureFlags = .channelInterruptRedirection
    guard
      case .openChannel(_, let parameters?) = try ControlMessage(
        parsing: long, version: .v6_0, features: features)
    else { throw WireError.unknownType("test", value: 5) }
    #expect(parameters.connectionID == 1 && parameters.eventFlag == 2)
    #expect(
      try ControlMessage(parsing: long, version: .v5_3, features: features)
        == .openChannel(Self.open, nil))
    #expect(try ControlMessage(parsing: long, version: .v6_0) == .openChannel(Self.open, nil))
    #expect(throws: WireError.self) {
      try ControlMessage(
        parsing: Self.header(5) + Self.openBytes, version: .v6_0, features: features)
    }
  }

  @Test func aShortContactMayNotClaimAClientID() {
    #expect(throws: WireError.tooShort("InitiateContact2", needed: 48, found: 32)) {
      try ControlMessage(parsing: Self.header(14) + Self.contactBytes(8), version: nil)
    }
  }

  @Test func targetInfoCountsByVersion() {
    var contact = Self.contact(flags: .pauseResume)
    #expect(contact.targetInfo == TargetInfo(sint: 2, vtl: 1, features: .pauseResume))
    contact.versionRequested = .v5_3
    #expect(contact.targetInfo == TargetInfo(sint: 2, vtl: 1))
    contact.versionRequested = .v5_0
    #expect(contact.targetInfo == TargetInfo(sint: 2, vtl: 0))
    contact.versionRequested = .v4_1
    contact.interruptPageOrTargetInfo = 0xFFFF_FFFF_FFFF_FFFF
    #expect(contact.targetInfo == TargetInfo())
  }

  @Test(arguments: [0, 30, 31, 0xFFFF_FFFF] as [UInt32])
  func unknownTypesAreRefused(_ type: UInt32) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: type >> UInt32(8 * $0)) } + Self.zeros(236)
    #expect(throws: WireError.unknownType("ControlMessage", value: UInt64(type))) {
      try ControlMessage(parsing: bytes, version: .v6_0)
    }
  }

  @Test func versionsAndFeaturesGateMessages() {
    func isKnown(_ type: MessageType, _ version: ProtocolVersion?, _ features: FeatureFlags) -> Bool
    {
      ControlMessageTable.row(type)?.isKnown(version: version, features: features) ?? false
    }
    let anyTime: [MessageType] = [.initiateContact, .versionResponse, .closeReservedChannel]
    for row in ControlMessageTable.rows {
      #expect(isKnown(row.type, nil, []) == anyTime.contains(row.type))
    }
    #expect(!isKnown(.modifyChannel, .v4_0, []) && isKnown(.modifyChannel, .v4_1, []))
    #expect(!isKnown(.tlConnectResult, .v4_0, []) && isKnown(.tlConnectResult, .v4_1, []))
    #expect(
      !isKnown(.modifyChannelResponse, .v5_2, []) && isKnown(.modifyChannelResponse, .v5_3, []))
    #expect(!isKnown(.pause, .v6_0, []) && isKnown(.pause, .v6_0, .pauseResume))
    #expect(!isKnown(.pause, .v5_3, .pauseResume) && !isKnown(.pause, .v6_0, .modifyConnection))
    #expect(isKnown(.modifyConnection, .v6_0, .modifyConnection))
  }

  @Test(arguments: ControlMessageTable.rows.map(\.type.rawValue))
  func headersCutShortAreRefused(_ type: UInt32) {
    #expect(throws: WireError.tooShort("MessageHeader", needed: 8, found: 7)) {
      try ControlMessage(parsing: [UInt8(type), 0, 0, 0, 0, 0, 0], version: .v6_0)
    }
  }
}
