// SPDX-License-Identifier: Apache-2.0

public import SimulatedLink
public import SystemPackage

/// Why a virtual machine can't be made or run.
public enum MachineError: Error, Equatable, Sendable {
  /// There is no /dev/kvm.
  case noKVM
  /// /dev/kvm is there, but this process may not use it.
  case noRights
  /// KVM lacks something that these machines need.
  case lacking(String)
  /// KVM is there, and does not run a machine.
  case unusable(step: String, Errno)
  /// A machine was made and run, and its processor did something else than it was told.
  case notRunning(String)
  case badKernel(BootImageError)
  /// What is to be in the machine's memory does not fit into it.
  case doesNotFit(String, byteCount: Int)
  case commandLineTooLong(byteCount: Int, maximum: Int)
  case badProcessorCount(Int)
  case badMemorySize(Int)
  case memory(Errno)
  /// Nobody listens at the host's path.
  case noHost(path: String, Errno)
  case host(LinkError)
}

extension MachineError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noKVM:
      "this system has no /dev/kvm: load kvm-intel or kvm-amd, or enable virtualisation in its firmware"
    case .noRights: "no permission on /dev/kvm: be root or in the group that owns it"
    case .lacking(let what):
      "KVM here has no \(what): Linux 5.0 or newer is needed, with Hyper-V in it"
    case .unusable(let step, let error): "KVM does not work here: \(step): \(error)"
    case .notRunning(let what): "KVM does not work here: a processor was started, and \(what)"
    case .badKernel(let error): "\(error)"
    case .doesNotFit(let what, let byteCount):
      "\(what) (\(byteCount) bytes) does not fit into the machine's memory"
    case .commandLineTooLong(let byteCount, let maximum):
      "the command line has \(byteCount) bytes, and the kernel takes \(maximum)"
    case .badProcessorCount(let count): "a machine has 1 to 16 processors, not \(count)"
    case .badMemorySize(let bytes):
      "a machine has 64 MiB to 64 GiB of memory in whole pages, not \(bytes) bytes"
    case .memory(let error): "no memory for the machine: \(error)"
    case .noHost(let path, let error): "no host at \(path): \(error)"
    case .host(.hostGone): "the host is gone"
    case .host(.refused(let status)): "the host refused this machine (\(status))"
    }
  }
}
