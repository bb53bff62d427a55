// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The data of a command that describes a device, built on the stack.
struct SCSIAnswer {
  // The longest answers are the pages of block limits and of block device characteristics.
  private(set) var bytes = InlineArray<64, UInt8>(repeating: 0)
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

  mutating func appendShort(_ value: UInt16) {
    append(UInt8(truncatingIfNeeded: value >> 8))
    append(UInt8(truncatingIfNeeded: value))
  }

  mutating func appendWord(_ value: UInt32) {
    appendShort(UInt16(truncatingIfNeeded: value >> 16))
    appendShort(UInt16(truncatingIfNeeded: value))
  }

  mutating func appendLong(_ value: UInt64) {
    appendWord(UInt32(truncatingIfNeeded: value >> 32))
    appendWord(UInt32(truncatingIfNeeded: value))
  }

  mutating func appendZeros(upTo end: Int) {
    while count < min(end, bytes.count) { append(0) }
  }

  /// Copies as much as the command and the request allow to the start of the data.
  func deliver<Data: ExternalData & ~Copyable & ~Escapable>(
    allocationLength: UInt32, limit: UInt32, to data: inout Data
  ) -> SCSIOutcome {
    var stream = SCSIStream(room: Int(min(allocationLength, limit)))
    do throws(ExternalDataError) {
      try stream.append(self, to: &data)
      return .good(stream.moved)
    } catch {
      return .invalidRequest
    }
  }
}

/// An answer that is longer than the stack should hold: pieces of it, cut at the end of the room.
struct SCSIStream {
  private let room: Int
  /// Where the next piece begins.
  private(set) var end = 0

  init(room: Int) { self.room = room }

  var hasRoom: Bool { end < room }
  /// Bytes that were moved, once every piece has been put.
  var moved: UInt32 { UInt32(truncatingIfNeeded: min(end, room)) }

  mutating func skip(_ count: Int) { end &+= count }

  mutating func append<Data: ExternalData & ~Copyable & ~Escapable>(
    _ piece: SCSIAnswer, to data: inout Data
  ) throws(ExternalDataError) {
    try put(piece, at: end, to: &data)
    end &+= piece.count
  }

  func put<Data: ExternalData & ~Copyable & ~Escapable>(
    _ piece: SCSIAnswer, at offset: Int, to data: inout Data
  ) throws(ExternalDataError) {
    let count = min(piece.count, room &- offset)
    guard count > 0 else { return }
    let span = piece.bytes.span
    // Safe: any bit pattern is a UInt8.
    try data.write(unsafe span.bytes.extracting(first: count), at: offset)
  }
}

extension SCSIDisk {
  /// The commands that tell about the disk.
  @inline(never)
  func describe<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: DiskCommand, for client: SCSIClient, limit: UInt32, maximumTransfer: UInt32,
    data: inout Data
  ) -> SCSIOutcome {
    var answer: SCSIAnswer
    let allocation: UInt32
    switch command {
    case .inquiry(let vitalProductData, let page, let length):
      allocation = length
      guard vitalProductData || page == 0 else { return .invalidField(byte: 2) }
      let found =
        vitalProductData
        ? vitalProductPage(page, maximumTransfer: maximumTransfer)
        : SCSIAnswer(SCSIDisk.inquiryData)
      guard let found else { return .invalidField(byte: 2) }
      answer = found
    case .readCapacity10:
      allocation = .max
      answer = SCSIAnswer(capacity10)
    case .readCapacity16(let length):
      allocation = length
      answer = SCSIAnswer(capacity16)
      answer.appendZeros(upTo: 32)
    case .modeSense(let sense):
      guard sense.control != 3 else { return .check(.savingUnsupported) }
      allocation = sense.allocationLength
      guard let pages = modePages(sense) else { return .invalidField(byte: 2, bit: 5) }
      answer = pages
    case .requestSense(let descriptorFormat, let length):
      allocation = length
      answer = senseData(descriptorFormat, for: client)
    case .supportedCommands(let request):
      return reportCommands(request, limit: limit, to: &data)
    default:
      return .check(.unknownCommand)
    }
    return answer.deliver(allocationLength: allocation, limit: limit, to: &data)
  }

  /// Errors are told with the command that had them: what is left to ask for is the state.
  private func senseData(_ descriptorFormat: Bool, for client: SCSIClient) -> SCSIAnswer {
    var sense = SCSISense.none
    if let attention = client.takeAttention() {
      sense = attention.sense
    } else if currentMode.contains(.stopped) {
      sense = .stopped
    }
    let bytes = SenseBytes(sense, descriptorFormat: descriptorFormat)
    var answer = SCSIAnswer()
    for index in 0..<bytes.count { answer.append(bytes.bytes[index]) }
    return answer
  }

  private var capacity10: Capacity10 {
    var capacity = Capacity10()
    capacity.lastBlock = UInt32(clamping: lastBlock)
    capacity.blockSize = UInt32(blockSize.rawValue)
    return capacity
  }

  private var capacity16: Capacity16 {
    var capacity = Capacity16()
    capacity.lastBlock = lastBlock
    capacity.blockSize = UInt32(blockSize.rawValue)
    capacity.exponents = physicalExponent
    // Blocks can be given back (LBPME), and read as zeros then (LBPRZ).
    capacity.provisioning = isThin ? 0xC0 : 0
    return capacity
  }

  private var lastBlock: UInt64 {
    let blockCount = blockCount
    return blockCount == 0 ? 0 : blockCount &- 1
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
}
