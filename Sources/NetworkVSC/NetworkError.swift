// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VSC

/// Why a network device did not do what was asked.
public enum NetworkError: Error, Equatable, Sendable {
  /// There is no room now: receive, then try again.
  case wouldBlock
  /// The start-up is not over.
  case notReady
  /// The frame has no bytes, or more than the device takes.
  case badFrameLength(Int, limit: Int)
  /// The info asks for what the device does not do, or what the frame is not.
  case badInfo
  /// Outside of what the device or this driver can do.
  case badMTU(Int, limit: Int)
  /// The host did not answer in time; what it was asked for.
  case timedOut(WireName)
  /// The host speaks none of the versions that this driver may.
  case noCommonVersion(oldest: NVSPVersion)
  /// The host refused a step of the start-up.
  case refused(WireName, NVSPStatus)
  /// The host refused to read or set an object, or to initialise RNDIS (the object is 0 then).
  case objectRefused(OID, RNDISStatus)
  /// What the host answered does not have the shape that the protocol demands.
  case malformed(WireError)
  /// The host answered something else than it was asked.
  case unexpected(NVSPMessageType)
  /// The device has failed for this reason.
  case channel(ChannelError)
  case transport(TransportError)
  /// The task that waited was cancelled.
  case cancelled

  /// Whether the device can be used no more.
  public var isFinal: Bool {
    switch self {
    case .wouldBlock, .notReady, .badFrameLength, .badInfo, .objectRefused, .cancelled: false
    default: true
    }
  }
}

extension NetworkError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .wouldBlock: "there is no room for the frame now"
    case .notReady: "the network device is not ready"
    case .badFrameLength(let count, let limit):
      "a frame of \(count) bytes, where 1 to \(limit) are possible"
    case .badInfo: "the frame does not fit what its per-packet info asks for"
    case .badMTU(let mtu, let limit):
      "an MTU of \(mtu) is out of range: 576 to \(limit) are possible"
    case .timedOut(let what): "the host did not answer in time (\(what))"
    case .noCommonVersion(let oldest): "the host speaks no version of NVSP from \(oldest) on"
    case .refused(let what, let status): "the host refused \(what): \(status)"
    case .objectRefused(let oid, let status):
      oid.rawValue == 0 ? "the host refused RNDIS: \(status)" : "the host refused \(oid): \(status)"
    case .malformed(let error): "network: \(error)"
    case .unexpected(let type): "the host answered with \(type)"
    case .channel(let error): error.description
    case .transport(let error): error.description
    case .cancelled: "cancelled"
    }
  }
}
