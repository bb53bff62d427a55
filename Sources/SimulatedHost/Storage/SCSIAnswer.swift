// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The data of a command that describes a device, built on the stack.
struct SCSIAnswer {
  // The longest answer is the page of block limits.
  private var bytes = InlineArray<64, UInt8>(repeating: 0)
  private(set) var count = 0

  init() {}

  init<Layout: WireLayout>(_ layout: Layout) { append(layout) }

  /// Appends a structure; one that does not fit is left out.
  mutating func append<Layout: WireLayout>(_ layout: Layout) {
    guard Layout.byteCount <= bytes.count &- count else { return }
    layout.write(into: &bytes, at: count)
    count &+= Layout.byteCount
  }

  mutating func append(_ byte: UInt8) {
    guard count < bytes.count else { return }
    bytes[count] = byte
    count &+= 1
  }

  /// Copies as much as the command and the request allow to the start of the data.
  func deliver<Data: ExternalData & ~Copyable & ~Escapable>(
    allocationLength: UInt32, limit: UInt32, to data: inout Data
  ) -> SCSIOutcome {
    let moved = min(UInt32(truncatingIfNeeded: count), allocationLength, limit)
    let span = bytes.span
    do throws(ExternalDataError) {
      // Safe: any bit pattern is a UInt8.
      try data.write(unsafe span.bytes.extracting(first: Int(moved)), at: 0)
      return .good(moved)
    } catch {
      return .invalidRequest
    }
  }
}

extension SCSIDisk {
  /// The commands that tell about the disk.
  func describe<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: SCSICommand, limit: UInt32, maximumTransfer: UInt32, data: inout Data
  ) -> SCSIOutcome {
    let answer: SCSIAnswer?
    let allocation: UInt32
    switch command {
    case .inquiry(let vitalProductData, let page, let length):
      allocation = length
      answer =
        vitalProductData
        ? vitalProductPage(page, maximumTransfer: maximumTransfer)
        : page == 0 ? SCSIAnswer(SCSIDisk.inquiryData) : nil
    case .readCapacity10:
      allocation = .max
      answer = SCSIAnswer(capacity10)
    case .readCapacity16(let length):
      allocation = length
      answer = SCSIAnswer(capacity16)
    case .modeSense(let sense):
      guard sense.control != 3 else { return .check(.savingUnsupported) }
      allocation = sense.allocationLength
      answer = modePages(sense)
    case .requestSense(let descriptorFormat, let length):
      // Errors are told with the command that had them, so none is ever left to ask for.
      allocation = length
      answer = descriptorFormat ? nil : SCSIAnswer(FixedSenseData(.none))
    default:
      return .check(.unknownCommand)
    }
    guard let answer else { return .check(.invalidField) }
    return answer.deliver(allocationLength: allocation, limit: limit, to: &data)
  }

  private var capacity10: Capacity10 {
    var capacity = Capacity10()
    capacity.lastBlock = UInt32(clamping: blockCount &- 1)
    capacity.blockSize = UInt32(blockSize.rawValue)
    return capacity
  }

  private var capacity16: Capacity16 {
    var capacity = Capacity16()
    capacity.lastBlock = blockCount &- 1
    capacity.blockSize = UInt32(blockSize.rawValue)
    return capacity
  }

  /// What Hyper-V's own disks say, since guests recognize them by these names.
  private static var inquiryData: InquiryData {
    var inquiry = InquiryData()
    inquiry.version = 6
    inquiry.responseFormat = 2
    inquiry.additionalLength = 31
    inquiry.features7 = 0x02
    inquiry.vendor = [0x4D, 0x73, 0x66, 0x74, 0x20, 0x20, 0x20, 0x20]
    inquiry.product = [
      0x56, 0x69, 0x72, 0x74, 0x75, 0x61, 0x6C, 0x20, 0x44, 0x69, 0x73, 0x6B, 0x20, 0x20, 0x20,
      0x20,
    ]
    inquiry.revision = [0x31, 0x2E, 0x30, 0x20]
    return inquiry
  }

  private func vitalProductPage(_ page: UInt8, maximumTransfer: UInt32) -> SCSIAnswer? {
    switch page {
    case 0x00:
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 4))
      answer.append(0x00)
      answer.append(0x80)
      answer.append(0x83)
      answer.append(0xB0)
      return answer
    case 0x80:
      // The serial number: the identity's bytes in hexadecimal.
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 32))
      for index in identity.wireBytes.indices {
        answer.append(SCSIDisk.digit(identity.wireBytes[index] >> 4))
        answer.append(SCSIDisk.digit(identity.wireBytes[index] & 0xF))
      }
      return answer
    case 0x83:
      // One designator: binary (1), NAA (3), 8 bytes, locally assigned (3 in the high bits).
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 12))
      answer.append(0x01)
      answer.append(0x03)
      answer.append(0x00)
      answer.append(0x08)
      for index in 0..<8 {
        let mixed = identity.wireBytes[index] ^ identity.wireBytes[index &+ 8]
        answer.append(index == 0 ? 0x30 | mixed & 0xF : mixed)
      }
      return answer
    case 0xB0:
      var limits = BlockLimits()
      limits.maximumTransfer = maximumTransfer / UInt32(blockSize.rawValue)
      limits.optimalTransfer = limits.maximumTransfer
      limits.optimalGranularity = UInt16(4096 / blockSize.rawValue)
      return SCSIAnswer(limits)
    default:
      return nil
    }
  }

  private static func digit(_ value: UInt8) -> UInt8 {
    value < 10 ? 0x30 &+ value : 0x61 &+ value &- 10
  }

  /// The caching page, alone or as all pages.
  private func modePages(_ sense: SCSIModeSense) -> SCSIAnswer? {
    let isKnown =
      switch sense.page {
      case 0x08: sense.subpage == 0
      case 0x3F: sense.subpage == 0 || sense.subpage == 0xFF
      default: false
      }
    guard isKnown else { return nil }
    var parameters: SCSIModeParameters = .forcedAccess
    if image.isReadOnly { parameters.formUnion(.writeProtected) }
    var page = CachingPage()
    // Control 1 asks for the bits that MODE SELECT could change: none.
    page.options = sense.control == 1 ? 0 : CachingPage.writeCache
    var answer = SCSIAnswer()
    if sense.isLong {
      var header = ModeHeader10()
      header.length = UInt16(ModeHeader10.byteCount + CachingPage.byteCount - 2)
      header.parameters = parameters
      answer.append(header)
    } else {
      var header = ModeHeader6()
      header.length = UInt8(ModeHeader6.byteCount + CachingPage.byteCount - 1)
      header.parameters = parameters
      answer.append(header)
    }
    answer.append(page)
    return answer
  }
}
