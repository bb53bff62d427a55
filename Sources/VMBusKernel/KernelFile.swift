// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import Platform
import SystemPackage
import VMBus
import VSC

/// The module's calls, on the device file of one device. Each may be made from any thread; those that wait
/// for the host say so.
struct KernelFile: ~Copyable, Sendable {
  let file: ModuleFile

  init(path: String) throws(Errno) { file = try ModuleFile(path: path) }

  var rawValue: Int32 { file.rawValue }

  func info() throws(Errno) -> hv_uservsc_info {
    var info = hv_uservsc_info()
    try checked(unsafe vmbus_uservsc_info(rawValue, &info))
    return info
  }

  /// The channel with that number, which counts subchannels from 1 on; nil when the host has not
  /// offered it, or has taken it back.
  func channel(_ number: UInt16) throws(Errno) -> ModuleChannel? {
    var channel = hv_uservsc_channel()
    do throws(Errno) {
      try checked(unsafe vmbus_uservsc_channel(rawValue, UInt32(number), &channel))
    } catch .noSuchFileOrDirectory {
      return nil
    }
    guard channel.channel == UInt32(number) else { return nil }
    return ModuleChannel(channel: ChannelID(channel.relid), ring: channel.ring_visibility)
  }

  /// The eventfd that is signalled when something happens to the device.
  func setDeviceEvent(_ event: borrowing EventDescriptor) throws(Errno) {
    try checked(vmbus_uservsc_device_event(rawValue, event.rawValue))
  }

  /// Asks the host to open a channel, and waits.
  ///
  /// - Parameter ringByteCount: of each of the two rings.
  /// - Returns: where its ring is mapped.
  func open(
    _ number: UInt16, ringByteCount: Int, event: borrowing EventDescriptor, _ userData: UserData
  ) throws(Errno) -> Int {
    var request = hv_uservsc_open()
    request.channel = UInt32(number)
    request.tx_bytes = UInt32(clamping: ringByteCount)
    request.rx_bytes = UInt32(clamping: ringByteCount)
    request.eventfd = event.rawValue
    unsafe withUnsafeMutableBytes(of: &request.user_data) { bytes in
      for index in userData.bytes.indices { unsafe bytes[index] = userData.bytes[index] }
    }
    try checked(unsafe vmbus_uservsc_open(rawValue, &request))
    return Int(clamping: request.offset)
  }

  /// Waits for the host.
  func close(_ number: UInt16) throws(Errno) {
    try checked(vmbus_uservsc_close(rawValue, UInt32(number)))
  }

  /// - Parameters:
  ///   - byteCount: a multiple of the system's page size.
  ///   - pages: gets a number for each 4096 bytes, where it is not nil.
  func allocate(
    byteCount: Int, withGPADL: Bool, _ visibility: ModuleVisibility,
    pages: UnsafeMutablePointer<GPN>?
  ) throws(Errno) -> ModuleRegion {
    var dma = hv_uservsc_dma()
    let flags = withGPADL ? HV_USERVSC_DMA_GPADL : 0
    try checked(
      unsafe vmbus_uservsc_allocate(
        rawValue, UInt64(byteCount), flags, visibility.rawValue, pages, &dma))
    return ModuleRegion(offset: Int(clamping: dma.offset), gpadl: GPADLID(dma.gpadl))
  }

  /// Waits for the host where the memory has a GPADL.
  func free(_ offset: Int) throws(Errno) {
    try checked(vmbus_uservsc_free(rawValue, UInt64(offset)))
  }
}

/// The page by which the module tells the end of a device before it takes memory away. It stays itself.
@safe
struct ModuleStatusPage: ~Copyable, @unchecked Sendable {
  // Nobody here writes to it.
  let start: UnsafeRawPointer

  init(of file: borrowing KernelFile) throws(Errno) {
    var error: Int32 = 0
    let mapped = unsafe vmbus_uservsc_map_status(file.rawValue, SystemPage.byteCount, &error)
    guard let mapped = unsafe mapped else { throw Errno(rawValue: error) }
    unsafe start = mapped
  }

  deinit { unsafe vmbus_uservsc_unmap(start, SystemPage.byteCount) }
}

/// A channel as the module shows it.
struct ModuleChannel: Sendable, Equatable {
  var channel: ChannelID
  /// Who sees its ring, as a number of the module's.
  var ring: UInt32
}

/// Memory of the module's.
struct ModuleRegion: Sendable, Equatable {
  /// Its name, and where it is mapped.
  var offset: Int
  var gpadl: GPADLID
}

/// How the module says who sees memory.
enum ModuleVisibility: UInt32, Sendable, CustomStringConvertible {
  /// The machine is not isolated.
  case plain = 1
  /// Isolated: decrypted.
  case shared = 2
  /// Isolated: private.
  case encrypted = 3

  var memory: MemoryVisibility { self == .encrypted ? .encrypted : .hostVisible }

  var description: String {
    switch self {
    case .plain: "plain"
    case .shared: "host-visible"
    case .encrypted: "encrypted"
    }
  }
}
