// SPDX-License-Identifier: Apache-2.0

/// A hypercall of a guest. All of it is the guest's word.
/// (Hypervisor Top-Level Functional Specification, "Hypercall interface".)
public enum Hypercall: Equatable, Sendable {
  /// HvPostMessage, whose input is `PostedMessage`.
  case postMessage(input: UInt64)
  /// HvSignalEvent with its input in the register.
  case signalEvent(connectionID: UInt32)
  /// HvSignalEvent, whose input of 8 bytes lies in memory.
  case signalEventInMemory(input: UInt64)

  public static let postMessageCode: UInt64 = 0x5C
  private static let signalEventCode: UInt64 = 0x5D

  /// - Parameters:
  ///   - input: the call's code and control bits.
  ///   - parameter: the input itself when the call is a fast one, otherwise where it lies.
  public static func decode(
    input: UInt64, parameter: UInt64
  ) -> Result<Hypercall, HypercallRefusal> {
    let code = input & 0xFFFF
    let isFast = input & 1 << 16 != 0
    guard code == postMessageCode || code == signalEventCode else {
      return .failure(HypercallRefusal(.invalidCode))
    }
    // Neither has a variable header, nor is it repeated; the other bits are reserved.
    guard input & ~0x1_FFFF == 0 else { return .failure(HypercallRefusal(.invalidInput)) }
    if code == signalEventCode, isFast { return connection(of: parameter).map(signalEvent) }
    // A message is larger than the registers are.
    guard !isFast else { return .failure(HypercallRefusal(.invalidInput)) }
    guard parameter & 7 == 0 else { return .failure(HypercallRefusal(.invalidAlignment)) }
    return .success(
      code == postMessageCode
        ? .postMessage(input: parameter) : .signalEventInMemory(input: parameter))
  }

  /// The input of HvSignalEvent: a connection id of 24 bits, and a flag number, which is 0 for VMBus.
  public static func connection(of input: UInt64) -> Result<UInt32, HypercallRefusal> {
    guard input >> 32 == 0 else { return .failure(HypercallRefusal(.invalidParameter)) }
    guard input >> 24 == 0 else { return .failure(HypercallRefusal(.invalidConnectionID)) }
    return .success(UInt32(truncatingIfNeeded: input))
  }
}

public struct HypercallRefusal: Error, Equatable, Sendable {
  public let status: HypercallStatus
  public init(_ status: HypercallStatus) { self.status = status }
}

/// The first 16 bytes of HvPostMessage's input; the message follows.
public struct PostedMessage: WireLayout, Equatable {
  public static let name: WireName = "posted message"
  public static let byteCount = 16
  /// Header and message together: so much is always read.
  public static let inputByteCount = 256

  /// @0
  public var connectionID: UInt32 = 0
  /// @8
  public var type: UInt32 = 0
  /// @12: at most 240.
  public var payloadByteCount: UInt32 = 0

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("connection_id", &connectionID)
    visitor.padding(4)
    visitor.integer("message_type", &type)
    visitor.integer("payload_size", &payloadByteCount)
  }

  /// Takes the input of a call apart.
  public static func parse(
    _ input: [UInt8]
  ) -> Result<(message: PostedMessage, payload: [UInt8]), HypercallRefusal> {
    guard let message = try? PostedMessage(parsing: input) else {
      return .failure(HypercallRefusal(.invalidInput))
    }
    let rest = input.dropFirst(byteCount)
    guard message.payloadByteCount <= UInt32(SynIC.maximumPayloadByteCount),
      rest.count >= Int(message.payloadByteCount)
    else { return .failure(HypercallRefusal(.invalidParameter)) }
    return .success((message, Array(rest.prefix(Int(message.payloadByteCount)))))
  }
}
