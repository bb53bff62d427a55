// SPDX-License-Identifier: Apache-2.0

import SystemPackage
public import VMBus

/// What the kernel's own structure says of a channel.
public struct KernelChannel: Sendable, Equatable {
  public var channel: ChannelID
  public var subchannelIndex: UInt16
  public var confidentiality: Confidentiality

  public init(channel: ChannelID, subchannelIndex: UInt16, confidentiality: Confidentiality) {
    self.channel = channel
    self.subchannelIndex = subchannelIndex
    self.confidentiality = confidentiality
  }
}

/// The kernel's channels, read once.
public struct KernelChannels: Sendable, Equatable {
  public var channels: [KernelChannel]

  public init(channels: [KernelChannel]) { self.channels = channels }

  /// Reads the list of the running kernel.
  public static func read() throws(KernelChannelsError) -> KernelChannels {
    throw .noBPF(code: 38)
  }

  public func channel(_ channel: ChannelID) throws(KernelChannelsError) -> KernelChannel {
    guard let found = channels.first(where: { $0.channel == channel }) else {
      throw .noSuchChannel(channel)
    }
    return found
  }
}

/// Why the kernel's structures could not be read.
public enum KernelChannelsError: Error, Sendable, Equatable {
  /// The kernel has no type information, or none that says what is needed.
  case noBTF(code: Int32)
  /// BPF programs need CAP_BPF and CAP_PERFMON.
  case noPrivilege
  /// The kernel has no `bpf` call, or not this kind of program.
  case noBPF(code: Int32)
  /// The program was not accepted.
  case refused(code: Int32)
  /// `hv_vmbus` is neither loaded nor built in, or its symbols are hidden.
  case noVMBus
  /// A kernel before 6.19 does not keep whether a channel is confidential.
  case noFields
  /// More channels than can be listed.
  case tooManyChannels
  /// The list was read, and the channel is not in it.
  case noSuchChannel(ChannelID)
  /// The flags that the kernel keeps are no lawful pair.
  case unlawful(ChannelID)
  case unreadable(code: Int32)
}

extension KernelChannelsError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noBTF(let code):
      "the kernel has no type information of VMBus channels (\(Errno(rawValue: code)))"
    case .noPrivilege: "reading the kernel's channels needs CAP_BPF and CAP_PERFMON, or root"
    case .noBPF(let code): "the kernel runs no BPF programs for us (\(Errno(rawValue: code)))"
    case .refused(let code):
      "the kernel refused the program that reads its channels "
        + "(\(Errno(rawValue: code)))"
    case .noVMBus: "there is no hv_vmbus in this kernel, or its symbols are hidden"
    case .noFields: "this kernel (before 6.19) does not keep whether a channel is encrypted"
    case .tooManyChannels: "the kernel has more channels than can be listed"
    case .noSuchChannel(let channel): "the kernel has no channel \(channel)"
    case .unlawful(let channel):
      "the kernel says that channel \(channel) has encrypted external memory without an "
        + "encrypted ring"
    case .unreadable(let code): "the kernel's channels can't be read (\(Errno(rawValue: code)))"
    }
  }
}
