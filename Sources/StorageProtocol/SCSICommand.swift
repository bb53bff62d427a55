// SPDX-License-Identifier: Apache-2.0

import VMBus

/// A SCSI command that this project knows, whatever form it came in.
///
/// Values are as the client wrote them: nothing here says that an address lies on the disk.
public enum SCSICommand: Equatable, Sendable {
  case testUnitReady
  case startStopUnit
  case requestSense(descriptorFormat: Bool, allocationLength: UInt32)
  /// Page 0 without vital product data is the standard answer.
  case inquiry(vitalProductData: Bool, page: UInt8, allocationLength: UInt32)
  case modeSense(SCSIModeSense)
  case reportLUNs(selection: UInt8, allocationLength: UInt32)
  case readCapacity10
  case readCapacity16(allocationLength: UInt32)
  case read(SCSIExtent)
  case write(SCSIExtent)
  /// A count of zero means up to the end of the disk.
  case synchronizeCache(SCSIExtent)
}

/// The blocks that a command is about.
public struct SCSIExtent: Equatable, Sendable {
  public var address: UInt64
  /// Blocks.
  public var count: UInt32
  /// Byte 1 of the command: protection in bits 7 to 5, FUA in bit 3.
  public var options: UInt8

  @inlinable
  public init(address: UInt64, count: UInt32, options: UInt8 = 0) {
    self.address = address
    self.count = count
    self.options = options
  }

  /// Force unit access: the data is on stable storage before the command completes.
  @inlinable public var isForced: Bool { options & 0x08 != 0 }
  /// Protection information, for a disk formatted with it.
  @inlinable public var protection: UInt8 { options >> 5 }
}

/// What MODE SENSE asks for, in either form.
public struct SCSIModeSense: Equatable, Sendable {
  /// The long form (10) has a longer header.
  public var isLong: Bool
  public var page: UInt8
  public var subpage: UInt8
  /// 0 current, 1 changeable, 2 default, 3 saved values.
  public var control: UInt8
  public var allocationLength: UInt32

  @inlinable
  public init(
    isLong: Bool, page: UInt8, subpage: UInt8 = 0, control: UInt8 = 0, allocationLength: UInt32
  ) {
    self.isLong = isLong
    self.page = page
    self.subpage = subpage
    self.control = control
    self.allocationLength = allocationLength
  }
}

extension SCSICommand {
  /// Parses the command in `payload`, of which the client says that it has `length` bytes.
  ///
  /// Throws `.invalid` for a length of 0 or more than 16, `.tooShort` for one that the command
  /// does not fit in, and `.unknownType` for a command that is not known here.
  @inlinable
  public init(parsing payload: InlineArray<20, UInt8>, length: UInt8) throws(WireError) {
    guard length > 0, length <= 16 else {
      throw .invalid("SCSIRequest", field: "commandLength", value: UInt64(length))
    }
    let span = payload.span
    // Safe: any bit pattern is a UInt8.
    try self.init(parsing: unsafe span.bytes.extracting(first: Int(length)))
  }

  @inlinable
  public init(parsing bytes: RawSpan) throws(WireError) {
    var reader = WireReader(bytes, name: "SCSICommand")
    let code = SCSIOperationCode(rawValue: try reader.read())
    switch code {
    case .read6, .write6:
      let block = try BlockCommand6(parsing: bytes)
      let extent = SCSIExtent(
        address: UInt64(block.high & 0x1F) << 16 | UInt64(block.low),
        count: block.count == 0 ? 256 : UInt32(block.count))
      self = code == .read6 ? .read(extent) : .write(extent)
    case .read10, .write10, .synchronizeCache10:
      let block = try BlockCommand10(parsing: bytes)
      let extent = SCSIExtent(
        address: UInt64(block.address), count: UInt32(block.count), options: block.options)
      self = SCSICommand.moving(code, read: .read10, write: .write10, extent)
    case .read12, .write12:
      let block = try BlockCommand12(parsing: bytes)
      let extent = SCSIExtent(
        address: UInt64(block.address), count: block.count, options: block.options)
      self = SCSICommand.moving(code, read: .read12, write: .write12, extent)
    case .read16, .write16, .synchronizeCache16:
      let block = try BlockCommand16(parsing: bytes)
      let extent = SCSIExtent(address: block.address, count: block.count, options: block.options)
      self = SCSICommand.moving(code, read: .read16, write: .write16, extent)
    case .serviceActionIn16:
      let block = try BlockCommand16(parsing: bytes)
      guard block.options & 0x1F == SCSICommand.readCapacityAction else {
        throw .unknownType("SCSICommand", value: UInt64(code.rawValue))
      }
      self = .readCapacity16(allocationLength: block.count)
    default:
      self = try SCSICommand(describing: code, bytes)
    }
  }

  /// The commands that move no blocks.
  @usableFromInline
  init(describing code: SCSIOperationCode, _ bytes: RawSpan) throws(WireError) {
    switch code {
    case .testUnitReady, .startStopUnit:
      _ = try SmallCommand6(parsing: bytes)
      self = code == .testUnitReady ? .testUnitReady : .startStopUnit
    case .requestSense:
      let small = try SmallCommand6(parsing: bytes)
      self = .requestSense(
        descriptorFormat: small.options & 1 != 0, allocationLength: UInt32(small.last))
    case .inquiry:
      let inquiry = try InquiryCommand(parsing: bytes)
      self = .inquiry(
        vitalProductData: inquiry.options & 1 != 0, page: inquiry.page,
        allocationLength: UInt32(inquiry.allocationLength))
    case .modeSense6:
      let small = try SmallCommand6(parsing: bytes)
      self = .modeSense(
        SCSIModeSense(
          isLong: false, page: small.page & 0x3F, subpage: small.subpage, control: small.page >> 6,
          allocationLength: UInt32(small.last)))
    case .modeSense10:
      let long = try ModeSenseCommand10(parsing: bytes)
      self = .modeSense(
        SCSIModeSense(
          isLong: true, page: long.page & 0x3F, subpage: long.subpage, control: long.page >> 6,
          allocationLength: UInt32(long.allocationLength)))
    case .readCapacity10:
      _ = try BlockCommand10(parsing: bytes)
      self = .readCapacity10
    case .reportLUNs:
      let report = try ReportLUNsCommand(parsing: bytes)
      self = .reportLUNs(
        selection: report.selection, allocationLength: report.allocationLength)
    default:
      throw .unknownType("SCSICommand", value: UInt64(code.rawValue))
    }
  }

  @inlinable
  static func moving(
    _ code: SCSIOperationCode, read: SCSIOperationCode, write: SCSIOperationCode,
    _ extent: SCSIExtent
  ) -> SCSICommand {
    code == read ? .read(extent) : code == write ? .write(extent) : .synchronizeCache(extent)
  }

  @inlinable static var readCapacityAction: UInt8 { 0x10 }
}

extension SCSICommand {
  /// Which way the command's data goes.
  @inlinable public var direction: SCSIDataDirection {
    switch self {
    case .testUnitReady, .startStopUnit, .synchronizeCache: .none
    case .write: .out
    case .read, .requestSense, .inquiry, .modeSense, .reportLUNs, .readCapacity10,
      .readCapacity16:
      .in
    }
  }

  /// Writes the command at the start of `payload`, the rest zero, and returns its length.
  ///
  /// Reads and writes take the form of 16 bytes, which reaches every block. A flush takes the
  /// form of ten bytes, which every host knows, unless its extent needs the long one.
  @inlinable
  public func write(into payload: inout InlineArray<20, UInt8>) -> UInt8 {
    payload = InlineArray(repeating: 0)
    switch self {
    case .testUnitReady:
      return SCSICommand.put(SmallCommand6(), into: &payload)
    case .startStopUnit:
      var small = SmallCommand6()
      small.code = .startStopUnit
      small.last = 1
      return SCSICommand.put(small, into: &payload)
    case .requestSense(let descriptorFormat, let allocationLength):
      var small = SmallCommand6()
      small.code = .requestSense
      small.options = descriptorFormat ? 1 : 0
      small.last = UInt8(clamping: allocationLength)
      return SCSICommand.put(small, into: &payload)
    case .inquiry(let vitalProductData, let page, let allocationLength):
      var inquiry = InquiryCommand()
      inquiry.options = vitalProductData ? 1 : 0
      inquiry.page = page
      inquiry.allocationLength = UInt16(clamping: allocationLength)
      return SCSICommand.put(inquiry, into: &payload)
    case .modeSense(let sense):
      return SCSICommand.put(sense, into: &payload)
    case .reportLUNs(let selection, let allocationLength):
      var report = ReportLUNsCommand()
      report.selection = selection
      report.allocationLength = allocationLength
      return SCSICommand.put(report, into: &payload)
    case .readCapacity10:
      var block = BlockCommand10()
      block.code = .readCapacity10
      return SCSICommand.put(block, into: &payload)
    case .readCapacity16(let allocationLength):
      var block = BlockCommand16()
      block.code = .serviceActionIn16
      block.options = SCSICommand.readCapacityAction
      block.count = allocationLength
      return SCSICommand.put(block, into: &payload)
    case .read(let extent):
      return SCSICommand.put(.read16, extent, into: &payload)
    case .write(let extent):
      return SCSICommand.put(.write16, extent, into: &payload)
    case .synchronizeCache(let extent):
      guard extent.address <= UInt64(UInt32.max), extent.count <= UInt32(UInt16.max) else {
        return SCSICommand.put(.synchronizeCache16, extent, into: &payload)
      }
      var block = BlockCommand10()
      block.code = .synchronizeCache10
      block.options = extent.options
      block.address = UInt32(truncatingIfNeeded: extent.address)
      block.count = UInt16(truncatingIfNeeded: extent.count)
      return SCSICommand.put(block, into: &payload)
    }
  }

  @inlinable
  static func put<Block: WireLayout>(
    _ block: Block, into payload: inout InlineArray<20, UInt8>
  ) -> UInt8 {
    block.write(into: &payload)
    return UInt8(truncatingIfNeeded: Block.byteCount)
  }

  @inlinable
  static func put(
    _ code: SCSIOperationCode, _ extent: SCSIExtent, into payload: inout InlineArray<20, UInt8>
  ) -> UInt8 {
    var block = BlockCommand16()
    block.code = code
    block.options = extent.options
    block.address = extent.address
    block.count = extent.count
    return put(block, into: &payload)
  }

  @usableFromInline
  static func put(_ sense: SCSIModeSense, into payload: inout InlineArray<20, UInt8>) -> UInt8 {
    guard sense.isLong else {
      var small = SmallCommand6()
      small.code = .modeSense6
      small.page = sense.control << 6 | sense.page & 0x3F
      small.subpage = sense.subpage
      small.last = UInt8(clamping: sense.allocationLength)
      return put(small, into: &payload)
    }
    var long = ModeSenseCommand10()
    long.page = sense.control << 6 | sense.page & 0x3F
    long.subpage = sense.subpage
    long.allocationLength = UInt16(clamping: sense.allocationLength)
    return put(long, into: &payload)
  }
}
