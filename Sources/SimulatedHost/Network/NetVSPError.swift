// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VMBus

/// What a guest may not do on a network channel.
///
/// Before the start-up is over, and on the control path, an error ends the channel's worker: the
/// channel stays as it is until the guest closes it. On the data path the packet is answered with a
/// failure, and the error is counted.
public enum NetVSPError: Error, Equatable, Sendable {
  case malformed(WireError)
  /// A message that has no place in this state, or not in this version.
  case unexpected(NVSPMessageType)
  /// A message that is sent once.
  case repeated(NVSPMessageType)
  /// A message that only a primary channel takes.
  case notOnSubchannel(NVSPMessageType)
  /// A message of the host's, from the guest.
  case wrongDirection(NVSPMessageType)
  /// A message whose answer the guest does not ask for.
  case notTransactional(NVSPMessageType)
  /// A completion of something that was not sent, or was completed before.
  case unknownCompletion(UInt64)
  /// A receive or send buffer that can't be had.
  case noBuffer(GuestBufferError)
  /// A section that does not lie within the send buffer, or more of it than it has.
  case badSection(index: UInt32, byteCount: UInt32)
  /// A packet with neither a section nor a range, or with more ranges than a packet may have.
  case badRanges(count: Int)
  case memory(page: UInt64)
  /// The headers of a RNDIS message lie in more than one range.
  case splitHeader(offset: Int)
  /// A RNDIS message that a guest does not send, or not in this state.
  case unexpectedRNDIS(RNDISMessageType)
  /// A frame of no allowed size.
  case badFrame(byteCount: Int)
  /// Large send or checksum info that the frame's headers contradict.
  case badOffload
  /// More control messages than a guest has any use for wait for receive buffers.
  case tooManyAnswers

  static func wrap<Value>(
    _ body: () throws(WireError) -> Value
  ) throws(NetVSPError) -> Value {
    do throws(WireError) { return try body() } catch { throw .malformed(error) }
  }
}

extension NetVSPError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .malformed(let error): "network guest: \(error)"
    case .unexpected(let type): "network guest: \(type) has no place here"
    case .repeated(let type): "network guest: \(type) once more"
    case .notOnSubchannel(let type): "network guest: \(type) on a subchannel"
    case .wrongDirection(let type): "network guest: \(type) is a host's"
    case .notTransactional(let type): "network guest: \(type) without asking for its completion"
    case .unknownCompletion(let id): "network guest: completion of unknown packet \(id)"
    case .noBuffer(let error): "network guest: a buffer that can't be had: \(error)"
    case .badSection(let index, let byteCount):
      "network guest: \(byteCount) bytes of section \(index) of the send buffer"
    case .badRanges(let count): "network guest: a packet with \(count) ranges"
    case .memory(let page):
      "network guest: page 0x\(String(page, radix: 16)) is not visible to the host"
    case .splitHeader(let offset):
      "network guest: the header at \(offset) lies in more than one range"
    case .unexpectedRNDIS(let type): "network guest: \(type) has no place here"
    case .badFrame(let byteCount): "network guest: a frame of \(byteCount) bytes"
    case .badOffload: "network guest: an offload that the frame contradicts"
    case .tooManyAnswers: "network guest: takes no answers"
    }
  }
}
