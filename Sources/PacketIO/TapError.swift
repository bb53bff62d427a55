// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import SystemPackage

/// Why a TAP device can't be had, or does not do what it was asked for.
public enum TapError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Longer than `TapDevice.maximumNameByteCount` bytes.
  case nameTooLong(String)
  /// Empty, or with a character that an interface's name can't have.
  case badName(String)
  /// An interface of that name exists: no TAP device, or one of another program.
  case exists(String)
  case notPermitted
  /// /dev/net/tun is not there.
  case noTunDriver(Errno)
  case mtuOutOfRange(Int)
  /// More than `TapDevice.maximumQueueCount`, or than a device that existed before may have.
  case tooManyQueues(Int)
  case badAddress(MACAddress)
  /// The system refused a step.
  case system(StaticStep, Errno)

  /// A step in plain words, known at compile time.
  public struct StaticStep: Equatable, Sendable, ExpressibleByStringLiteral,
    CustomStringConvertible
  {
    let text: StaticString
    public init(stringLiteral value: StaticString) { text = value }
    public var description: String { text.description }
    public static func == (left: Self, right: Self) -> Bool {
      left.description == right.description
    }
  }

  public var description: String {
    switch self {
    case .nameTooLong(let name):
      "'\(name)' has \(name.utf8.count) bytes: an interface's name has at most "
        + "\(TapDevice.maximumNameByteCount)"
    case .badName(let name):
      "'\(name)' is no name for an interface: it must not be empty, '.' or '..', nor have spaces, '/', ':' or '%'"
    case .exists(let name):
      "an interface '\(name)' exists, and it is no TAP device that is free to use: choose another name"
    case .notPermitted:
      "a TAP device takes CAP_NET_ADMIN: run as root, or make one with 'ip tuntap add NAME mode tap user USER multi_queue vnet_hdr'"
    case .noTunDriver(let error):
      "/dev/net/tun can't be opened (\(error)): 'modprobe tun', or a container needs --device /dev/net/tun"
    case .mtuOutOfRange(let mtu):
      "an MTU of \(mtu) is out of range: \(TapDevice.mtuRange.lowerBound) to \(TapDevice.mtuRange.upperBound)"
    case .tooManyQueues(let count):
      "\(count) queues are more than the TAP device can have: at most \(TapDevice.maximumQueueCount), and one if it was made without multi_queue"
    case .badAddress(let address):
      "\(address) can't be an interface's address: it is a group's, or zero"
    case .system(let step, let error): "\(step): \(error)"
    }
  }
}
