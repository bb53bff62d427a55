// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

/// By hand from SBC-3 and the storage protocol's layouts.
@Suite struct SCSICommandBlockTests {
  static func bytes(_ block: SCSICommandBlock) -> [UInt8] {
    (0..<Int(block.length)).map { block.bytes[$0] }
  }

  @Test func unmap() {
    let block = SCSICommandBlock.unmap(parameterByteCount: 0x0118)
    #expect(Self.bytes(block) == [0x42, 0, 0, 0, 0, 0, 0, 0x01, 0x18, 0])
    #expect(block.direction == .out)
    var list = InlineArray<24, UInt8>(repeating: 0xFF)
    UnmapParameterList(address: 0x01_0203_0405, count: 0x0607_0809).write(into: &list)
    let expected: [UInt8] =
      [0, 22, 0, 16, 0, 0, 0, 0] + [0, 0, 0, 1, 2, 3, 4, 5] + [6, 7, 8, 9, 0, 0, 0, 0]
    #expect(list.indices.map { list[$0] } == expected)
  }

  @Test(arguments: [(false, UInt8(0)), (true, 8)])
  func writeSame(_ unmap: Bool, _ options: UInt8) {
    let block = SCSICommandBlock.writeSame(address: 0x0102, count: 0x0304, unmap: unmap)
    #expect(
      Self.bytes(block) == [0x93, options, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0])
  }

  @Test func aRequestSaysWhereItsDataGoes() {
    let out = SCSIRequest(
      block: .unmap(parameterByteCount: 24), lun: 3, transferLength: 24, timeout: 9,
      version: .windows81)
    #expect(out.direction == .out && out.flags.contains(.dataOut) && out.lun == 3)
    #expect(out.commandLength == 10 && out.transferLength == 24 && out.timeout == 9)
    let none = SCSIRequest(
      block: SCSICommandBlock(.testUnitReady), lun: 0, transferLength: 0, timeout: 9,
      version: .windows7)
    #expect(none.direction == .none && !none.flags.contains(.dataIn) && none.length == 36)
  }

  @Test func pages() throws {
    var limits: [UInt8] = [0, 0xB0, 0, 0x3C, 1, 0, 0, 8]
    limits += [0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0]
    limits += [0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 16, 0x80, 0, 0, 1]
    limits += [0, 0, 0, 0, 0, 0, 0x40, 0]
    let page = try BlockLimits(parsing: unsafe limits.span.bytes)
    #expect(page.header.page == 0xB0 && page.optimalGranularity == 8)
    #expect(page.maximumTransfer == 2048 && page.optimalTransfer == 512)
    #expect(page.maximumUnmap == 65536 && page.maximumUnmapDescriptors == 4)
    #expect(page.unmapGranularity == 16 && page.unmapAlignment == 0x8000_0001)
    #expect(page.maximumWriteSame == 0x4000)
    let thin: [UInt8] = [0, 0xB2, 0, 4, 0, 0xE4, 2, 0]
    let provisioning = try DiskProvisioningPage(parsing: unsafe thin.span.bytes)
    #expect(provisioning.hasUnmap && provisioning.hasWriteSameUnmap)
    #expect(provisioning.readsZeros && provisioning.isThin)
    let capacity: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 2, 0, 0, 3, 0xC0, 0]
    let answer = try Capacity16(parsing: unsafe capacity.span.bytes)
    #expect(answer.lastBlock == 9 && answer.blockSize == 512)
    #expect(answer.exponents == 3 && answer.provisioning == 0xC0)
  }

  @Test func theStartOfAnOutcome() throws {
    let bytes: [UInt8] = [52, 0, 0x84, 0x02, 0, 0, 0, 3, 16, 20, 1, 0, 0x04, 0x03, 0x02, 0x01]
    let fields = try SCSIOutcomeFields(parsing: unsafe bytes.span.bytes)
    #expect(fields.srbStatus.rawValue == 0x84 && fields.scsiStatus == .checkCondition)
    #expect(fields.transferLength == 0x0102_0304)
  }

  @Test func controlPackets() {
    let create = StorageNegotiation.createSubchannels(0x0203)
    let bytes = create.indices.map { create[$0] }
    #expect(bytes.prefix(16) == [13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0])
    let reset = StorageNegotiation.reset(.resetLUN, lun: 5)
    #expect(reset[0] == 4 && reset[4] == 1 && reset[12] == 52 && reset[19] == 5)
  }
}
