// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import VMBus
import VSC

/// What the module says of a device, checked.
struct ModuleFacts: Sendable, Equatable {
  /// Who sees the ring of the primary channel, and memory for DMA.
  var ring: ModuleVisibility
  var external: ModuleVisibility
  var channel: ChannelID
  var deviceClass: DeviceClass
  var instance: GUID
  var offerFlags: OfferFlags
  /// Major in the upper half, minor in the lower one.
  var busVersion: UInt32
  var isIsolated: Bool
  var knowsConfidentialChannels: Bool
  /// Bytes that both rings of a channel may have together, at most.
  var ringLimit: Int
  var regionLimit: Int
  var gpadlLimit: Int
  /// Of all memory of the device.
  var limit: Int
  var used: Int
  var leakedPages: UInt64

  /// The interface that this package speaks.
  static let version = UInt32(HV_USERVSC_VERSION)

  init(
    _ info: hv_uservsc_info, _ primary: ModuleChannel
  ) throws(ModuleFactsError) {
    guard info.version == Self.version else { throw .version(info.version) }
    guard let ring = ModuleVisibility(rawValue: primary.ring) else {
      throw .visibility(primary.ring)
    }
    guard let external = ModuleVisibility(rawValue: info.external_visibility) else {
      throw .visibility(info.external_visibility)
    }
    self.ring = ring
    self.external = external
    channel = primary.channel
    deviceClass = DeviceClass(Self.guid(info.class_id))
    instance = Self.guid(info.instance_id)
    offerFlags = OfferFlags(rawValue: UInt16(truncatingIfNeeded: info.offer_flags))
    busVersion = info.vmbus_version
    isIsolated = info.isolated != 0
    knowsConfidentialChannels = info.features & HV_USERVSC_FEATURE_CONFIDENTIAL != 0
    ringLimit = Int(clamping: info.ring_bytes_max)
    regionLimit = Int(clamping: info.region_bytes_max)
    gpadlLimit = Int(clamping: info.gpadl_bytes_max)
    limit = Int(clamping: info.device_bytes_max)
    used = Int(clamping: info.device_bytes_used)
    leakedPages = info.leaked_pages
  }

  typealias Bytes16 = (
    UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8,
    UInt8,
    UInt8, UInt8
  )

  private static func guid(_ bytes: Bytes16) -> GUID {
    var guid = GUID()
    unsafe withUnsafeBytes(of: bytes) { bytes in
      for index in guid.wireBytes.indices { guid.wireBytes[index] = unsafe bytes[index] }
    }
    return guid
  }

  func confidentiality() throws(ModuleFactsError) -> Confidentiality {
    try Self.confidentiality(ring: ring, external: external)
  }

  /// The lawful pairs; a channel with any other is not opened.
  static func confidentiality(
    ring: ModuleVisibility, external: ModuleVisibility
  ) throws(ModuleFactsError) -> Confidentiality {
    switch (ring, external) {
    case (.plain, .plain), (.shared, .shared): .hostVisible
    case (.encrypted, .shared): .ring
    case (.encrypted, .encrypted): .ringAndExternalMemory
    default: throw .unlawful(ring: ring, external: external)
    }
  }
}

/// The module is not the one that this package knows, or says what no channel may be.
enum ModuleFactsError: Error, Equatable, CustomStringConvertible {
  case version(UInt32)
  /// Not even the call that tells the version is the same.
  case otherInterface
  case visibility(UInt32)
  case unlawful(ring: ModuleVisibility, external: ModuleVisibility)

  var description: String {
    switch self {
    case .version(let found):
      "the kernel module \(KernelModuleDriver.name) speaks version \(found) of its interface, and this program version \(ModuleFacts.version)"
    case .otherInterface:
      "the kernel module \(KernelModuleDriver.name) speaks another interface than this program, which speaks version \(ModuleFacts.version)"
    case .visibility(let value):
      "the kernel module \(KernelModuleDriver.name) says that memory is of kind \(value), which is none"
    case .unlawful(let ring, let external):
      "its ring is \(ring) and its external memory \(external), which no channel may have"
    }
  }
}
