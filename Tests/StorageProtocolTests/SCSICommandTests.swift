// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

@Suite struct SCSICommandTests {
  static func payload(_ bytes: [UInt8]) -> InlineArray<20, UInt8> {
    InlineArray { $0 < bytes.count ? bytes[$0] : 0 }
  }

  static func parse(_ bytes: [UInt8], length: UInt8? = nil) throws(WireError) -> SCSICommand {
    try SCSICommand(parsing: payload(bytes), length: length ?? UInt8(bytes.count))
  }

  static let known: [([UInt8], SCSICommand)] = [
    ([0x00, 0, 0, 0, 0, 0], .testUnitReady),
    ([0x03, 1, 0, 0, 18, 0], .requestSense(descriptorFormat: true, allocationLength: 18)),
    ([0x08, 0xFF, 0x01, 0x02, 3, 0], .read(SCSIExtent(address: 0x1F0102, count: 3))),
    ([0x0A, 0x01, 0x00, 0x00, 0, 0], .write(SCSIExtent(address: 0x10000, count: 256))),
    (
      [0x12, 0, 0, 0x01, 0x24, 0],
      .inquiry(vitalProductData: false, page: 0, allocationLength: 0x124)
    ),
    (
      [0x12, 1, 0x83, 0, 0xFF, 0],
      .inquiry(vitalProductData: true, page: 0x83, allocationLength: 255)
    ),
    (
      [0x1A, 0x08, 0x48, 0x05, 4, 0],
      .modeSense(
        SCSIModeSense(isLong: false, page: 8, subpage: 5, control: 1, allocationLength: 4))
    ),
    (
      [0x5A, 0, 0xFF, 0, 0, 0, 0, 0x02, 0x01, 0],
      .modeSense(SCSIModeSense(isLong: true, page: 0x3F, control: 3, allocationLength: 0x201))
    ),
    ([0x1B, 0, 0, 0, 1, 0], .startStopUnit),
    ([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], .readCapacity10),
    (
      [0x28, 0x08, 1, 2, 3, 4, 0, 5, 6, 0],
      .read(SCSIExtent(address: 0x0102_0304, count: 0x0506, options: 8))
    ),
    ([0x2A, 0, 0, 0, 0, 7, 0, 0, 1, 0], .write(SCSIExtent(address: 7, count: 1))),
    ([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], .synchronizeCache(SCSIExtent(address: 0, count: 0))),
    (
      [0xA8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
      .read(SCSIExtent(address: 0x0102_0304, count: 0x0506_0708))
    ),
    ([0xAA, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0], .write(SCSIExtent(address: 9, count: 2))),
    (
      [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0],
      .read(SCSIExtent(address: 0x0102_0304_0506_0708, count: 0x090A_0B0C))
    ),
    (
      [0x8A, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0],
      .write(SCSIExtent(address: 1, count: 2, options: 0x28))
    ),
    (
      [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0],
      .synchronizeCache(SCSIExtent(address: 3, count: 4))
    ),
    (
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
      .readCapacity16(allocationLength: 32)
    ),
    (
      [0xA0, 0, 2, 0, 0, 0, 0x01, 0x02, 0x03, 0x04, 0, 0],
      .reportLUNs(selection: 2, allocationLength: 0x0102_0304)
    ),
  ]

  @Test(arguments: known)
  func eachCommandIsRead(_ pair: ([UInt8], SCSICommand)) throws {
    #expect(try Self.parse(pair.0) == pair.1)
  }

  @Test(arguments: known)
  func aCommandThatIsCutShortIsRefused(_ pair: ([UInt8], SCSICommand)) {
    for length in 1..<pair.0.count {
      #expect(throws: WireError.self) { try Self.parse(pair.0, length: UInt8(length)) }
    }
  }

  @Test(arguments: [0, 17, 20, 21, 255] as [UInt8])
  func lengthsThatNoCommandHasAreRefused(_ length: UInt8) {
    #expect(
      throws: WireError.invalid("SCSIRequest", field: "commandLength", value: UInt64(length))
    ) {
      try Self.parse([0], length: length)
    }
  }

  @Test func unknownCommandsAreNamed() {
    #expect(throws: WireError.unknownType("SCSICommand", value: 0xFF)) {
      try Self.parse([0xFF], length: 16)
    }
    // SERVICE ACTION IN with another action than READ CAPACITY.
    #expect(throws: WireError.unknownType("SCSICommand", value: 0x9E)) {
      try Self.parse([0x9E, 0x12], length: 16)
    }
  }

  static let built: [(SCSICommand, [UInt8])] = [
    (.testUnitReady, [0, 0, 0, 0, 0, 0]),
    (
      .read(SCSIExtent(address: 0x1_0000_0002, count: 0x304)),
      [0x88, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 3, 4, 0, 0]
    ),
    (
      .write(SCSIExtent(address: 5, count: 1, options: 8)),
      [0x8A, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0]
    ),
    (.synchronizeCache(SCSIExtent(address: 0, count: 0)), [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    (
      .synchronizeCache(SCSIExtent(address: 1 << 32, count: 0)),
      [0x91, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    ),
    (
      .inquiry(vitalProductData: true, page: 0xB0, allocationLength: 64),
      [0x12, 1, 0xB0, 0, 64, 0]
    ),
    (
      .readCapacity16(allocationLength: 32),
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]
    ),
    (
      .reportLUNs(selection: 0, allocationLength: 520),
      [0xA0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 0, 0]
    ),
  ]

  @Test(arguments: built)
  func eachCommandIsBuilt(_ pair: (SCSICommand, [UInt8])) throws {
    var payload = InlineArray<20, UInt8>(repeating: 0xEE)
    let length = Int(pair.0.write(into: &payload))
    #expect((0..<length).map { payload[$0] } == pair.1)
    #expect((length..<20).allSatisfy { payload[$0] == 0 })
  }

  @Test(arguments: known)
  func whatIsBuiltIsReadBack(_ pair: ([UInt8], SCSICommand)) throws {
    var payload = InlineArray<20, UInt8>(repeating: 0)
    let length = pair.1.write(into: &payload)
    #expect(try SCSICommand(parsing: payload, length: length) == pair.1)
  }

  @Test func bigEndianFieldsAreDescribedByTheirValue() {
    var block = BlockCommand10()
    block.address = 0x0102_0304
    #expect(block.fields[2].value == "\(0x0102_0304)")
    #expect(block.fields[2].offset == 2)
  }
}
