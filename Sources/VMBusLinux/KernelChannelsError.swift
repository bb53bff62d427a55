// SPDX-License-Identifier: Apache-2.0

import SystemPackage
public import VMBus

/// Why the kernel could not be asked what of a channel is encrypted.
public enum KernelChannelsError: Error, Sendable, Equatable {
  /// `hv_vmbus` is not in this kernel, or its symbols are not listed.
  case noVMBus
  /// The kernel does not tell this process where its structures are.
  case addressesHidden
  /// No BTF, neither of the kernel nor of `hv_vmbus`.
  case noTypes
  /// Linux before 6.19 does not keep it.
  case noFields
  case noPrivilege
  /// The kernel takes no BPF programs, or not this one.
  case refused(code: Int32)
  /// The structures are not what their types say.
  case unreadable
  /// The list was read, and the channel is not in it.
  case noSuchChannel(ChannelID)
  /// External memory encrypted under a ring that is not.
  case unlawful(ChannelID)
}

extension KernelChannelsError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noVMBus: "the kernel has no hv_vmbus, or does not list its symbols"
    case .addressesHidden:
      "the kernel hides its addresses: that needs CAP_SYSLOG (or root), and kptr_restrict below 2"
    case .noTypes: "the kernel has no type information (BTF) of hv_vmbus that this process may read"
    case .noFields:
      "this kernel does not keep whether a channel is encrypted (Linux 6.19 and newer do)"
    case .noPrivilege: "running a BPF program needs CAP_BPF and CAP_PERFMON, or root"
    case .refused(let code): "the kernel does not take the BPF program: \(Errno(rawValue: code))"
    case .unreadable: "the kernel's list of channels is not what its type information says"
    case .noSuchChannel(let channel): "the kernel has no channel \(channel)"
    case .unlawful(let channel):
      "the kernel says of channel \(channel) that its external memory is encrypted and its ring is not"
    }
  }
}
