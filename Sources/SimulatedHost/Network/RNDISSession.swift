// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import VMBus

/// What RNDIS answers are made of that it does not hold itself.
public struct NetworkFacts: Sendable {
  public var permanentAddress = MACAddress()
  /// Bytes of the largest frame without its Ethernet header.
  public var mtu = 1500
  /// In units of 100 bits per second.
  public var linkSpeed: UInt64 = 100_000_000
  public var isLinkUp = true
  public var maximumQueues = 1
  /// As the guest has told it by NVSP: major in the upper half.
  public var ndisVersion: UInt32 = 0x0006_001E
  /// Whether NVSP has agreed on coalesced receive.
  public var allowsCoalescing = false
  public var framesFromGuest: UInt64 = 0
  public var framesToGuest: UInt64 = 0
  public var framesWithoutBuffer: UInt64 = 0
  public var errorsFromGuest: UInt64 = 0

  public init() {}
}

/// How received frames are spread over channels.
public struct ReceiveScaling: Equatable, Sendable {
  public var hash: RSSHash
  public var key: Toeplitz.Key
  /// A power of two of entries, each a channel's number.
  public var table: [UInt8]

  public static func == (left: Self, right: Self) -> Bool {
    left.hash == right.hash && left.table == right.table
      && left.key.indices.allSatisfy { left.key[$0] == right.key[$0] }
  }
}

/// The control side of RNDIS for one guest: what its network interface is set to.
///
/// A value without I/O. None of its messages is on the data path, so it may allocate.
public struct RNDISSession: Sendable {
  public enum State: Equatable, Sendable {
    case uninitialized, initialized, halted
  }

  /// What a message has changed.
  public enum Event: Equatable, Sendable {
    case none
    case initialized
    case filter(PacketFilter)
    /// Nil: no scaling, all goes to the primary channel.
    case scaling(ReceiveScaling?)
    case offloads
    case address(MACAddress)
    /// Nothing is received any more.
    case halted
  }

  public struct Reply: Equatable, Sendable {
    /// The message to send back; none for HALT and for completions.
    public var message: [UInt8]?
    public var event = Event.none
  }

  public internal(set) var state = State.uninitialized
  public internal(set) var filter: PacketFilter = []
  public internal(set) var scaling: ReceiveScaling?
  public internal(set) var coalescesIPv4 = false
  public internal(set) var coalescesIPv6 = false
  public internal(set) var offloads = NDISOffloadParameters()
  public internal(set) var currentAddress: MACAddress?
  public internal(set) var multicastAddresses: [MACAddress] = []
  var lookahead: UInt32 = 0

  public init() {}

  /// Bytes that a control message may have.
  public static let maximumMessageByteCount = 4096
  public static let maximumMulticastAddresses = 32

  /// Answers one control message.
  ///
  /// - Parameters:
  ///   - message: a private copy of exactly one message.
  ///   - facts: what the interface is at this moment.
  /// - Throws: for what is no message of a guest; the packet is answered with a failure.
  public mutating func handle(
    _ message: RawSpan, _ facts: NetworkFacts
  ) throws(NetVSPError) -> Reply {
    do throws(WireError) {
      let message = try RNDISHeader.message(in: message)
      let type = try RNDISHeader(parsing: message).type
      switch type {
      case .initialize:
        let body = try RNDISInitialize(message: message)
        reset()
        state = .initialized
        return Reply(
          message: RNDISInitializeComplete(requestID: body.requestID).messageBytes(),
          event: .initialized)
      case .halt:
        reset()
        state = .halted
        return Reply(event: .halted)
      case .reset:
        guard state == .initialized else { throw .unknownType("RNDIS", value: 6) }
        reset()
        state = .initialized
        return Reply(
          message: RNDISResetComplete(addressingReset: 1).messageBytes(), event: .halted)
      case .query:
        let body = try RNDISQuery(message: message)
        return Reply(message: answer(body, message, facts))
      case .set:
        let body = try RNDISSet(message: message)
        let (status, event) = apply(body, message, facts)
        return Reply(
          message: RNDISSetComplete(requestID: body.requestID, status: status).messageBytes(),
          event: event)
      case .keepalive:
        let body = try RNDISKeepalive(message: message)
        return Reply(
          message: RNDISKeepaliveComplete(requestID: body.requestID).messageBytes())
      case .keepaliveComplete:
        return Reply()
      default:
        throw .unknownType("RNDIS", value: UInt64(type.rawValue))
      }
    } catch {
      throw .malformed(error)
    }
  }

  /// The interface as a guest finds it.
  private mutating func reset() { self = RNDISSession() }

  private func answer(
    _ query: RNDISQuery, _ message: RawSpan, _ facts: NetworkFacts
  ) -> [UInt8] {
    var complete = RNDISQueryComplete(requestID: query.requestID)
    guard state == .initialized else {
      complete.status = .failure
      complete.bufferOffset = 0
      return complete.messageBytes()
    }
    // What it brings is not needed, but has to lie within the message.
    let isWhole =
      (try? RNDISQuery.informationBuffer(
        of: message, offset: query.bufferOffset, count: query.bufferByteCount)) != nil
    guard isWhole else {
      complete.status = .invalidLength
      complete.bufferOffset = 0
      return complete.messageBytes()
    }
    guard let value = value(of: query.oid, facts) else {
      complete.status = .notSupported
      complete.bufferOffset = 0
      return complete.messageBytes()
    }
    complete.bufferByteCount = UInt32(value.count)
    return complete.messageBytes(buffer: value)
  }

  private mutating func apply(
    _ set: RNDISSet, _ message: RawSpan, _ facts: NetworkFacts
  ) -> (RNDISStatus, Event) {
    guard state == .initialized else { return (.failure, .none) }
    guard
      let buffer = try? RNDISSet.informationBuffer(
        of: message, offset: set.bufferOffset, count: set.bufferByteCount)
    else { return (.invalidLength, .none) }
    do throws(WireError) {
      return try self.set(set.oid, buffer, facts)
    } catch .tooShort {
      return (.invalidLength, .none)
    } catch {
      return (.invalidData, .none)
    }
  }

  /// INDICATE_STATUS without a buffer.
  public static func indication(_ status: RNDISStatus, buffer: [UInt8] = []) -> [UInt8] {
    RNDISIndicateStatus(
      status: status, bufferByteCount: UInt32(buffer.count),
      bufferOffset: buffer.isEmpty ? 0 : 12
    ).messageBytes(buffer: buffer)
  }
}
