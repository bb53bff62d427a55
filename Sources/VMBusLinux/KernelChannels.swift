// SPDX-License-Identifier: Apache-2.0

import CBPF
import CLinux
public import VMBus

/// What the kernel's own structure says of a channel.
public struct KernelChannel: Sendable, Equatable {
  public var channel: ChannelID
  public var subchannelIndex: UInt16
  public var flags: OfferFlags

  public init(channel: ChannelID, subchannelIndex: UInt16, flags: OfferFlags) {
    self.channel = channel
    self.subchannelIndex = subchannelIndex
    self.flags = flags
  }
}

/// The kernel's channels, read at one moment.
public struct KernelChannels: Sendable, Equatable {
  public var channels: [KernelChannel]

  public init(channels: [KernelChannel]) { self.channels = channels }

  /// What of a channel is encrypted.
  public func confidentiality(
    of channel: ChannelID
  ) throws(KernelChannelsError) -> Confidentiality {
    guard let found = channels.first(where: { $0.channel == channel }) else {
      throw .noSuchChannel(channel)
    }
    guard let confidentiality = found.flags.confidentiality else { throw .unlawful(channel) }
    return confidentiality
  }

  /// Reads them from the running kernel, by a BPF program that lists them (its source is
  /// `CShims/CBPF/kernel_channels.bpf.c`). Nothing in sysfs says what it says.
  public static func read() throws(KernelChannelsError) -> KernelChannels {
    var connection: UInt64 = 0
    let found = unsafe vmbus_kernel_symbol("vmbus_connection", &connection)
    guard found >= 0 else { throw .noVMBus }
    guard connection != 0 else { throw .addressesHidden }
    guard SysfsDirectory("/sys/kernel/btf/vmlinux").exists else { throw .noTypes }
    return try read(connection: connection, types: nil)
  }

  /// The same from a `vmbus_connection` that lies at an address, with the kernel's type information
  /// or that of a file.
  static func read(connection: UInt64, types: String?) throws(KernelChannelsError) -> KernelChannels
  {
    let program = try KernelChannelsProgram(types: types)
    let count = try program.run(connection: connection)
    var channels: [KernelChannel] = []
    for slot in 0..<count { try channels.append(program.record(slot)) }
    return KernelChannels(channels: channels)
  }
}

/// The BPF program, loaded into the kernel as long as this lives.
@safe
private struct KernelChannelsProgram: ~Copyable {
  private let object: OpaquePointer

  init(types: String?) throws(KernelChannelsError) {
    vmbus_bpf_be_quiet()
    let bytes = PackageResources.kernel_channels_bpf
    var error: Int32 = 0
    let opened = unsafe bytes.withUnsafeBytes { bytes in
      unsafe Self.open(bytes, types, &error)
    }
    guard let opened = unsafe opened else { throw .refused(code: error) }
    let result = unsafe bpf_object__load(opened)
    guard result >= 0 else {
      unsafe bpf_object__close(opened)
      throw result == -EPERM ? .noPrivilege : .refused(code: -result)
    }
    unsafe object = opened
  }

  deinit { unsafe bpf_object__close(object) }

  private static func open(
    _ bytes: UnsafeRawBufferPointer, _ types: String?, _ error: inout Int32
  ) -> OpaquePointer? {
    // Safe: the array is not empty, and libbpf copies it.
    let start = unsafe bytes.baseAddress.unsafelyUnwrapped
    guard let types else { return unsafe vmbus_bpf_open(start, bytes.count, nil, &error) }
    return unsafe vmbus_bpf_open(start, bytes.count, types, &error)
  }

  /// Fills the map; returns how many records it has.
  func run(connection: UInt64) throws(KernelChannelsError) -> UInt32 {
    var request = vmbus_kernel_channels_request(connection: connection)
    var outcome: Int32 = 0
    let program = unsafe vmbus_bpf_program(object, "list_channels")
    let size = UInt32(MemoryLayout<vmbus_kernel_channels_request>.size)
    let result = unsafe vmbus_bpf_run(program, &request, size, &outcome)
    guard result >= 0 else { throw result == -EPERM ? .noPrivilege : .refused(code: -result) }
    switch outcome {
    case vmbus_kernel_channels_no_types.rawValue: throw .noTypes
    case vmbus_kernel_channels_no_fields.rawValue: throw .noFields
    case ..<0: throw .unreadable
    default: return UInt32(outcome)
    }
  }

  func record(_ slot: UInt32) throws(KernelChannelsError) -> KernelChannel {
    var record = vmbus_kernel_channel()
    let map = unsafe bpf_object__find_map_fd_by_name(object, "channels")
    guard unsafe vmbus_bpf_lookup(map, slot, &record) >= 0 else { throw .unreadable }
    var flags: OfferFlags = []
    if record.encrypted_ring != 0 { flags.insert(.confidentialRingBuffer) }
    if record.encrypted_external_memory != 0 { flags.insert(.confidentialExternalMemory) }
    return KernelChannel(
      channel: ChannelID(record.relid), subchannelIndex: record.subchannel_index, flags: flags)
  }
}
