// SPDX-License-Identifier: Apache-2.0

/// A command that the disks of this host know: its length and the bits that it looks at.
///
/// One table says what is accepted and what REPORT SUPPORTED OPERATION CODES reports, so that the
/// two can't differ. Bits that a command does not look at must be zero: a client that sets one asks
/// for something (protection, an anchor, a saved page) that it would not get.
struct SCSIUsage: Equatable {
  /// Bytes of the command.
  let byteCount: Int
  /// The service action, for codes that have some.
  let action: UInt8?
  /// The bits of bytes 0 to 7 and of 8 to 15, the first byte in the highest bits. The operation
  /// code counts as used.
  let first: UInt64
  let second: UInt64

  private init(_ byteCount: Int, _ first: UInt64, _ second: UInt64 = 0, action: UInt8? = nil) {
    self.byteCount = byteCount
    self.first = first
    self.second = second
    self.action = action
  }

  static let actionMask: UInt8 = 0x1F

  /// Whether commands of this code are told apart by the service action in byte 1.
  static func hasActions(_ code: UInt8) -> Bool { code == 0x9E || code == 0xA3 }

  /// - Parameter action: looked at for codes that have service actions only.
  static func of(_ code: UInt8, action: UInt8) -> SCSIUsage? {
    switch code {
    // Moving blocks comes first: the data path asks for these. DPO and FUA, address, count.
    case 0x28, 0x2A: SCSIUsage(10, 0xFF18_FFFF_FFFF_00FF, 0xFF00_0000_0000_0000)
    case 0x88, 0x8A: SCSIUsage(16, 0xFF18_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000)
    case 0x08, 0x0A: SCSIUsage(6, 0xFF1F_FFFF_FF00_0000)
    case 0xA8, 0xAA: SCSIUsage(12, 0xFF18_FFFF_FFFF_FFFF, 0xFFFF_0000_0000_0000)
    // IMMED, address, count.
    case 0x35: SCSIUsage(10, 0xFF02_FFFF_FFFF_00FF, 0xFF00_0000_0000_0000)
    case 0x91: SCSIUsage(16, 0xFF02_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000)
    default: describing(code, action: action)
    }
  }

  private static func describing(_ code: UInt8, action: UInt8) -> SCSIUsage? {
    switch (code, action) {
    case (0x00, _): SCSIUsage(6, 0xFF00_0000_0000_0000)
    // DESC, allocation length.
    case (0x03, _): SCSIUsage(6, 0xFF01_0000_FF00_0000)
    // EVPD, page, allocation length.
    case (0x12, _): SCSIUsage(6, 0xFF01_FFFF_FF00_0000)
    // PF and SP, length.
    case (0x15, _): SCSIUsage(6, 0xFF11_0000_FF00_0000)
    // DBD, page, subpage, allocation length.
    case (0x1A, _): SCSIUsage(6, 0xFF08_FFFF_FF00_0000)
    // IMMED, NO_FLUSH and START: a disk that is no medium changer has no other state.
    case (0x1B, _): SCSIUsage(6, 0xFF01_0000_0500_0000)
    case (0x25, _): SCSIUsage(10, 0xFF00_0000_0000_0000)
    // DPO and BYTCHK (0 or 1), address, count.
    case (0x2E, _): SCSIUsage(10, 0xFF12_FFFF_FFFF_00FF, 0xFF00_0000_0000_0000)
    case (0x8E, _): SCSIUsage(16, 0xFF12_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000)
    case (0xAE, _): SCSIUsage(12, 0xFF12_FFFF_FFFF_FFFF, 0xFFFF_0000_0000_0000)
    // DPO and BYTCHK (0, 1 or 3), address, count.
    case (0x2F, _): SCSIUsage(10, 0xFF16_FFFF_FFFF_00FF, 0xFF00_0000_0000_0000)
    case (0x8F, _): SCSIUsage(16, 0xFF16_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000)
    case (0xAF, _): SCSIUsage(12, 0xFF16_FFFF_FFFF_FFFF, 0xFFFF_0000_0000_0000)
    // UNMAP, in the long form NDOB too.
    case (0x41, _): SCSIUsage(10, 0xFF08_FFFF_FFFF_00FF, 0xFF00_0000_0000_0000)
    case (0x93, _): SCSIUsage(16, 0xFF09_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000)
    // Length of the parameter list.
    case (0x42, _): SCSIUsage(10, 0xFF00_0000_0000_00FF, 0xFF00_0000_0000_0000)
    case (0x55, _): SCSIUsage(10, 0xFF11_0000_0000_00FF, 0xFF00_0000_0000_0000)
    // LLBAA and DBD, page, subpage, allocation length.
    case (0x5A, _): SCSIUsage(10, 0xFF18_FFFF_0000_00FF, 0xFF00_0000_0000_0000)
    case (0xA0, _): SCSIUsage(12, 0xFF00_FF00_0000_FFFF, 0xFFFF_0000_0000_0000)
    // READ CAPACITY(16), GET LBA STATUS, REPORT SUPPORTED OPERATION CODES.
    case (0x9E, 0x10):
      SCSIUsage(16, 0xFF1F_0000_0000_0000, 0x0000_FFFF_FFFF_0000, action: action)
    case (0x9E, 0x12):
      SCSIUsage(16, 0xFF1F_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_0000, action: action)
    case (0xA3, 0x0C):
      SCSIUsage(12, 0xFF1F_87FF_FFFF_FFFF, 0xFFFF_0000_0000_0000, action: action)
    default: nil
    }
  }

  /// Whether some service action of the code is known.
  static func isKnown(_ code: UInt8) -> Bool {
    hasActions(code) || of(code, action: 0) != nil
  }

  /// The used bits of a byte of the command.
  func mask(_ index: Int) -> UInt8 {
    let word = index < 8 ? first : second
    return UInt8(truncatingIfNeeded: word >> UInt64(truncatingIfNeeded: 56 &- 8 &* (index & 7)))
  }
}

/// The bytes of a command, which are the client's. They are read at fixed places only.
struct SCSICommandBytes {
  /// Bytes 0 to 7 and 8 to 15, the first in the highest bits.
  let first: UInt64
  let second: UInt64

  init(_ payload: InlineArray<20, UInt8>) {
    var first: UInt64 = 0
    var second: UInt64 = 0
    for index in 0..<8 {
      first = first << 8 | UInt64(payload[index])
      second = second << 8 | UInt64(payload[index &+ 8])
    }
    self.first = first
    self.second = second
  }

  var code: UInt8 { byte(0) }
  var action: UInt8 { byte(1) & SCSIUsage.actionMask }

  var isVerify: Bool { code == 0x2F || code == 0x8F || code == 0xAF }

  func byte(_ index: Int) -> UInt8 {
    let word = index < 8 ? first : second
    return UInt8(truncatingIfNeeded: word >> UInt64(truncatingIfNeeded: 56 &- 8 &* (index & 7)))
  }

  func short(_ index: Int) -> UInt32 { UInt32(byte(index)) << 8 | UInt32(byte(index &+ 1)) }
  func word(_ index: Int) -> UInt32 { short(index) << 16 | short(index &+ 2) }
  func long(_ index: Int) -> UInt64 { UInt64(word(index)) << 32 | UInt64(word(index &+ 4)) }

  /// The first bit that is set and not used: its byte, and its number in the byte.
  func firstUnused(_ usage: SCSIUsage) -> (byte: UInt8, bit: UInt8)? {
    let inFirst = first & ~usage.first
    // What lies behind the command's end is not the command.
    let inSecond = usage.byteCount > 8 ? second & ~usage.second & usage.bytesOfSecond : 0
    guard inFirst | inSecond != 0 else { return nil }
    let zeros = inFirst != 0 ? inFirst.leadingZeroBitCount : 64 &+ inSecond.leadingZeroBitCount
    guard zeros / 8 < usage.byteCount else { return nil }
    return (UInt8(truncatingIfNeeded: zeros / 8), UInt8(truncatingIfNeeded: 7 &- zeros % 8))
  }
}

extension SCSIUsage {
  /// All ones where the second word holds bytes of the command.
  fileprivate var bytesOfSecond: UInt64 {
    ~UInt64(0) << UInt64(truncatingIfNeeded: 8 &* (16 &- byteCount))
  }
}
