// SPDX-License-Identifier: Apache-2.0

public import BalloonProtocol
public import SystemPackage
public import VSC

/// Why memory can't be taken from this machine. Each is one line for an operator.
public enum BalloonMemoryError: Error, Equatable, Sendable, CustomStringConvertible {
  case unreadable(String, Errno)
  /// The pagemap gives zeros in place of page numbers.
  case pageNumbersHidden
  case noPagemap(Errno)
  case pinningRefused(Errno)
  /// The system has no memory for it, or a limit is reached.
  case memoryRefused(Errno)
  case noAddressSpace
  /// The protocol counts pages of 4096 bytes, and a page of this machine is larger.
  case pageSize(Int)

  public var description: String {
    switch self {
    case .unreadable(let path, let error): "\(path): \(error)"
    case .pageNumbersHidden:
      "the kernel hides physical page numbers from this process: it needs CAP_SYS_ADMIN (run it as root, or give the service this capability)"
    case .noPagemap(let error): "/proc/self/pagemap: \(error)"
    case .pinningRefused(let error) where error == .noFunction || error == .invalidArgument:
      "memory can't be pinned: io_uring with empty buffer slots is needed, Linux 5.19 or later"
    case .pinningRefused(let error):
      "memory can't be pinned: io_uring was refused (\(error)): see the sysctl kernel.io_uring_disabled and the service's system call filter"
    case .memoryRefused(let error):
      "no more memory was given (\(error)): see the limit on locked memory (CAP_IPC_LOCK lifts it) and the service's memory limit"
    case .noAddressSpace: "no address space is left for the balloon"
    case .pageSize(let size): "pages of \(size) bytes can't be given in units of 4096"
    }
  }
}

/// A message of the host that was dropped. The channel goes on.
public enum BalloonProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
  case malformed(WireError)
  /// A message that has no meaning at this point, or that only a guest sends.
  case unexpected(BalloonMessageType)
  case unknown(BalloonMessageType)
  /// A packet that is not in-band.
  case packetType(UInt16)

  public var description: String {
    switch self {
    case .malformed(let error): "\(error)"
    case .unexpected(let type): "\(type) was not expected"
    case .unknown(let type): "\(type) is not known"
    case .packetType(let type): "a packet of type \(type), where in-band ones are sent"
    }
  }
}

/// Why the driver ended.
public enum BalloonError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The host refused versions 2.0, 1.0 and 0.3.
  case noCommonVersion
  case capabilitiesRefused
  /// The host did not answer this message in time.
  case timedOut(BalloonMessageType)
  case channel(ChannelError)
  case memory(BalloonMemoryError)

  public var description: String {
    switch self {
    case .noCommonVersion:
      "the host speaks none of the dynamic memory protocol's versions 2.0, 1.0 and 0.3"
    case .capabilitiesRefused: "the host does not accept this guest's capabilities"
    case .timedOut(let type): "the host did not answer \(type) in time"
    case .channel(let error): "\(error)"
    case .memory(let error): "\(error)"
    }
  }
}
