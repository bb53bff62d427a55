// SPDX-License-Identifier: Apache-2.0

/// Why a channel did not do what was asked.
public enum ChannelError: Error, Equatable, Sendable {
  /// The ring refused. `full` and `packetTooLarge` leave the channel as it was; all others end it.
  case ring(RingError)
  /// A packet's content broke the device's protocol.
  case wire(WireError)
  /// The channel is over.
  case ended(ChannelEnd)

  /// Whether the channel can be used no more.
  public var isFinal: Bool {
    switch self {
    case .ring(.full), .ring(.packetTooLarge): false
    case .wire: false
    default: true
    }
  }
}

/// Why a channel is over.
public enum ChannelEnd: UInt32, Error, Sendable, CustomStringConvertible {
  /// The driver closed it.
  case closed = 1
  /// The host took the offer back.
  case rescinded = 2
  /// The host, or the connection to it, is gone.
  case hostGone = 3
  /// The peer corrupted the ring.
  case corrupt = 4

  public var description: String {
    switch self {
    case .closed: "the channel was closed"
    case .rescinded: "the host took the device back"
    case .hostGone: "the host is gone"
    case .corrupt: "the host corrupted the ring"
    }
  }
}

extension ChannelError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .ring(let error): error.description
    case .wire(let error): error.description
    case .ended(let end): end.description
    }
  }
}
