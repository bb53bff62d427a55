// SPDX-License-Identifier: Apache-2.0

/// A control message as it is posted: at most 240 bytes, held in place.
public struct OutgoingMessage: Sendable {
  /// What one message holds (the hypervisor's limit).
  public static let maximumByteCount = 240

  private var storage: InlineArray<240, UInt8>
  /// Bytes in use, header included.
  public private(set) var count: Int

  private init(_ type: MessageType) {
    storage = InlineArray(repeating: 0)
    count = 0
    append(MessageHeader { $0.type = type })
  }

  /// The wire form of a message. GPADL words beyond what a message holds (27 after a header, 28
  /// after a body) are left out; `GPADL.messages` never makes so many.
  public init(_ message: ControlMessage) {
    self.init(message.type)
    switch message {
    case .requestOffers, .allOffersDelivered, .unload, .unloadComplete, .pause, .pauseResponse,
      .resume:
      break
    case .offerChannel(let body): append(body)
    case .rescindChannelOffer(let body): append(body)
    case .openChannel(let body, let parameters):
      append(body)
      if let parameters { append(parameters) }
    case .openChannelResult(let body): append(body)
    case .closeChannel(let body): append(body)
    case .gpadlHeader(let body, let words):
      append(body)
      append(words.prefix(GPADL.wordsInHeader))
    case .gpadlBody(let body, let words):
      append(body)
      append(words.prefix(GPADL.wordsInBody))
    case .gpadlCreated(let body): append(body)
    case .gpadlTeardown(let body): append(body)
    case .gpadlTorndown(let body): append(body)
    case .relIDReleased(let body): append(body)
    case .initiateContact(let contact, nil): append(contact)
    case .initiateContact(let contact, let clientID?):
      append(
        InitiateContact2 {
          $0.contact = contact
          $0.clientID = clientID
        })
    case .versionResponse(let response, let features, let pages):
      append(response, features, pages)
    case .openReservedChannel(let body): append(body)
    case .closeReservedChannel(let body): append(body)
    case .closeReservedChannelResponse(let body): append(body)
    case .tlConnectRequest(let request, nil): append(request)
    case .tlConnectRequest(let request, let siloID?):
      append(
        TLConnectRequest2 {
          $0.request = request
          $0.siloID = siloID
        })
    case .modifyChannel(let body): append(body)
    case .tlConnectResult(let body): append(body)
    case .modifyChannelResponse(let body): append(body)
    case .modifyConnection(let body): append(body)
    case .modifyConnectionResponse(let body): append(body)
    }
  }

  /// The bytes to post.
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    // Safe: the span holds bytes, every one of them written by `init`.
    borrowing get { unsafe storage.span.bytes.extracting(first: count) }
  }

  /// The same bytes, for captures and tests.
  public var array: [UInt8] { (0..<count).map { storage[$0] } }

  public var type: MessageType {
    // The first 4 bytes were written by `init`.
    MessageType(
      rawValue: UInt32(storage[0]) | UInt32(storage[1]) << 8 | UInt32(storage[2]) << 16
        | UInt32(storage[3]) << 24)
  }

  private mutating func append(
    _ response: VersionResponse, _ features: FeatureFlags?, _ pages: MonitorPages?
  ) {
    guard let features else { return append(response) }
    let response2 = VersionResponse2 {
      $0.response = response
      $0.supportedFeatures = features
    }
    guard let pages else { return append(response2) }
    append(
      VersionResponse3 {
        $0.response = response2
        $0.monitorPages = pages
      })
  }

  private mutating func append(_ body: some WireLayout) {
    for byte in body.wireBytes { append(byte) }
  }

  private mutating func append(_ words: ArraySlice<UInt64>) {
    for word in words {
      for shift in 0..<8 { append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
    }
  }

  private mutating func append(_ byte: UInt8) {
    guard count < Self.maximumByteCount else { return }
    storage[count] = byte
    count += 1
  }
}

extension OutgoingMessage: Equatable {
  public static func == (left: OutgoingMessage, right: OutgoingMessage) -> Bool {
    guard left.count == right.count else { return false }
    for index in 0..<left.count where left.storage[index] != right.storage[index] {
      return false
    }
    return true
  }
}
