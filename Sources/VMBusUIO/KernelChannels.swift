// SPDX-License-Identifier: Apache-2.0

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
  /// A kernel before 6.19: its channels are never confidential by its own account.
  case noFields
  /// More channels than can be listed.
  case tooManyChannels
  /// The list was read, and the channel is not in it.
  case noSuchChannel(ChannelID)
  /// The flags that the kernel keeps are no lawful pair.
  case unlawful(ChannelID)
  case unreadable(code: Int32)
}
