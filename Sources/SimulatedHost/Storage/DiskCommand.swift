// SPDX-License-Identifier: Apache-2.0

import StorageProtocol

/// A command for a disk, whatever form it came in. Numbers are as the client wrote them: nothing
/// here says that an address lies on the disk.
enum DiskCommand: Equatable {
  case read(SCSIExtent)
  case write(SCSIExtent)
  case writeAndVerify(SCSIExtent, compares: Bool)
  case verify(SCSIExtent, DiskComparison)
  /// A count of zero means up to the end of the disk.
  case synchronizeCache(SCSIExtent)
  /// Without data the blocks become zeros.
  case writeSame(SCSIExtent, unmaps: Bool, hasData: Bool)
  case unmap(listLength: UInt32)
  case provisioning(address: UInt64, allocationLength: UInt32)
  case testUnitReady
  case startStopUnit(isStart: Bool, flushes: Bool)
  case requestSense(descriptorFormat: Bool, allocationLength: UInt32)
  case inquiry(vitalProductData: Bool, page: UInt8, allocationLength: UInt32)
  case modeSense(SCSIModeSense)
  case modeSelect(SCSIModeSelect)
  case reportLUNs(selection: UInt8, allocationLength: UInt32)
  case readCapacity10
  case readCapacity16(allocationLength: UInt32)
  case supportedCommands(SupportedCommandsRequest)
}

/// What VERIFY compares blocks with.
enum DiskComparison: Equatable {
  case nothing
  case data
  /// Each block with the one that was sent.
  case oneBlock
}

struct SCSIModeSelect: Equatable {
  /// The long form (10) has a longer header.
  var isLong: Bool
  var isPageFormat: Bool
  var savesPages: Bool
  var listLength: UInt32
}

struct SupportedCommandsRequest: Equatable {
  /// 0 all, 1 a code without service actions, 2 a code with one, 3 either.
  var options: UInt8
  var code: UInt8
  var action: UInt32
  var wantsTimeouts: Bool
  var allocationLength: UInt32
}

extension DiskCommand {
  /// What the bytes mean, or how they are refused. The payload has `length` bytes of them.
  static func decode(
    _ payload: InlineArray<20, UInt8>, length: UInt8
  ) -> Result<DiskCommand, SCSIRefusal> {
    guard length > 0, length <= 16 else { return .failure(.request) }
    let bytes = SCSICommandBytes(payload)
    guard let usage = SCSIUsage.of(bytes.code, action: bytes.action) else {
      return .failure(
        SCSIUsage.hasActions(bytes.code) && length > 1
          ? .sense(.invalidField, .command(byte: 1, bit: 4)) : .sense(.unknownCommand, nil))
    }
    guard usage.byteCount <= Int(length) else { return .failure(.request) }
    if let (byte, bit) = bytes.firstUnused(usage) {
      return .failure(.sense(.invalidField, .command(byte: byte, bit: bit)))
    }
    // BYTCHK 2 is reserved, though each of its bits is used.
    if bytes.isVerify, bytes.byte(1) & 0x06 == 0x04 {
      return .failure(.sense(.invalidField, .command(byte: 1, bit: 2)))
    }
    return .success(DiskCommand(bytes))
  }

  /// - Parameter bytes: of a command that is in the table.
  private init(_ bytes: SCSICommandBytes) {
    switch bytes.code {
    case 0x28: self = .read(SCSIExtent(ten: bytes))
    case 0x2A: self = .write(SCSIExtent(ten: bytes))
    case 0x88: self = .read(SCSIExtent(sixteen: bytes))
    case 0x8A: self = .write(SCSIExtent(sixteen: bytes))
    case 0x08: self = .read(SCSIExtent(six: bytes))
    case 0x0A: self = .write(SCSIExtent(six: bytes))
    case 0xA8: self = .read(SCSIExtent(twelve: bytes))
    case 0xAA: self = .write(SCSIExtent(twelve: bytes))
    case 0x35: self = .synchronizeCache(SCSIExtent(ten: bytes))
    case 0x91: self = .synchronizeCache(SCSIExtent(sixteen: bytes))
    case 0x2E, 0x8E, 0xAE, 0x2F, 0x8F, 0xAF, 0x41, 0x93, 0x42: self.init(changing: bytes)
    default: self.init(describing: bytes)
    }
  }

  private init(changing bytes: SCSICommandBytes) {
    let compares = bytes.byte(1) & 0x02 != 0
    let comparison: DiskComparison =
      bytes.byte(1) & 0x06 == 0x06 ? .oneBlock : compares ? .data : .nothing
    let unmaps = bytes.byte(1) & 0x08 != 0
    switch bytes.code {
    case 0x2E: self = .writeAndVerify(SCSIExtent(ten: bytes), compares: compares)
    case 0x8E: self = .writeAndVerify(SCSIExtent(sixteen: bytes), compares: compares)
    case 0xAE: self = .writeAndVerify(SCSIExtent(twelve: bytes), compares: compares)
    case 0x2F: self = .verify(SCSIExtent(ten: bytes), comparison)
    case 0x8F: self = .verify(SCSIExtent(sixteen: bytes), comparison)
    case 0xAF: self = .verify(SCSIExtent(twelve: bytes), comparison)
    case 0x41: self = .writeSame(SCSIExtent(ten: bytes), unmaps: unmaps, hasData: true)
    case 0x93:
      self = .writeSame(
        SCSIExtent(sixteen: bytes), unmaps: unmaps, hasData: bytes.byte(1) & 0x01 == 0)
    default: self = .unmap(listLength: bytes.short(7))
    }
  }

  private init(describing bytes: SCSICommandBytes) {
    switch bytes.code {
    case 0x03:
      self = .requestSense(
        descriptorFormat: bytes.byte(1) & 1 != 0, allocationLength: UInt32(bytes.byte(4)))
    case 0x12:
      self = .inquiry(
        vitalProductData: bytes.byte(1) & 1 != 0, page: bytes.byte(2),
        allocationLength: bytes.short(3))
    case 0x15: self = .modeSelect(SCSIModeSelect(bytes, isLong: false))
    case 0x55: self = .modeSelect(SCSIModeSelect(bytes, isLong: true))
    case 0x1A, 0x5A:
      let isLong = bytes.code == 0x5A
      self = .modeSense(
        SCSIModeSense(
          isLong: isLong, page: bytes.byte(2) & 0x3F, subpage: bytes.byte(3),
          control: bytes.byte(2) >> 6,
          allocationLength: isLong ? bytes.short(7) : UInt32(bytes.byte(4))))
    case 0x1B:
      self = .startStopUnit(
        isStart: bytes.byte(4) & 1 != 0, flushes: bytes.byte(4) & 4 == 0)
    case 0x25: self = .readCapacity10
    case 0x9E where bytes.action == 0x10:
      self = .readCapacity16(allocationLength: bytes.word(10))
    case 0x9E: self = .provisioning(address: bytes.long(2), allocationLength: bytes.word(10))
    case 0xA0: self = .reportLUNs(selection: bytes.byte(2), allocationLength: bytes.word(6))
    case 0xA3:
      self = .supportedCommands(
        SupportedCommandsRequest(
          options: bytes.byte(2) & 7, code: bytes.byte(3), action: bytes.short(4),
          wantsTimeouts: bytes.byte(2) & 0x80 != 0, allocationLength: bytes.word(6)))
    default: self = .testUnitReady
    }
  }

  /// What a stopped disk can't do.
  var needsMedium: Bool {
    switch self {
    case .read, .write, .writeAndVerify, .verify, .synchronizeCache, .writeSame, .unmap,
      .provisioning, .testUnitReady, .readCapacity10, .readCapacity16:
      true
    default: false
    }
  }

  /// The blocks that it is about, for those that name some.
  var extent: SCSIExtent? {
    switch self {
    case .read(let extent), .write(let extent), .writeAndVerify(let extent, _),
      .verify(let extent, _), .synchronizeCache(let extent), .writeSame(let extent, _, _):
      extent
    default: nil
    }
  }
}

extension SCSIModeSelect {
  init(_ bytes: SCSICommandBytes, isLong: Bool) {
    self.isLong = isLong
    isPageFormat = bytes.byte(1) & 0x10 != 0
    savesPages = bytes.byte(1) & 0x01 != 0
    listLength = isLong ? bytes.short(7) : UInt32(bytes.byte(4))
  }
}

extension SCSIExtent {
  fileprivate init(six bytes: SCSICommandBytes) {
    let count = bytes.byte(4)
    self.init(
      address: UInt64(bytes.word(0) & 0x1F_FFFF), count: count == 0 ? 256 : UInt32(count))
  }

  fileprivate init(ten bytes: SCSICommandBytes) {
    self.init(address: UInt64(bytes.word(2)), count: bytes.short(7), options: bytes.byte(1))
  }

  fileprivate init(twelve bytes: SCSICommandBytes) {
    self.init(address: UInt64(bytes.word(2)), count: bytes.word(6), options: bytes.byte(1))
  }

  fileprivate init(sixteen bytes: SCSICommandBytes) {
    self.init(address: bytes.long(2), count: bytes.word(10), options: bytes.byte(1))
  }
}
