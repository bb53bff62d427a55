// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

@Suite struct SCSISenseTests {
  static let outOfRange: [UInt8] = [
    0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0x00, 0, 0, 0, 0,
  ]

  @Test func fixedFormatIsBuilt() {
    #expect(FixedSenseData(.addressOutOfRange).wireBytes == Self.outOfRange)
  }

  @Test func bothFormatsAreRead() {
    let fixed = SCSICommandTests.payload(Self.outOfRange)
    #expect(SCSISense(parsing: fixed, count: 18) == .addressOutOfRange)
    #expect(SCSISense(parsing: fixed, count: 14) == .addressOutOfRange)
    #expect(SCSISense(parsing: fixed, count: 13) == nil)
    let descriptor = SCSICommandTests.payload([0x72, 0xF3, 0x11, 0x04])
    #expect(
      SCSISense(parsing: descriptor, count: 4)
        == SCSISense(key: .mediumError, code: 0x11, qualifier: 4))
    #expect(SCSISense(parsing: descriptor, count: 3) == nil)
    #expect(SCSISense(parsing: SCSICommandTests.payload([0x7F]), count: 20) == nil)
  }

  @Test func senseCountsOnlyWithItsFlagAndStatus() {
    var request = SCSIRequest()
    request.payload = SCSICommandTests.payload(Self.outOfRange)
    request.senseLength = 255
    request.srbStatus = .error
    request.scsiStatus = .checkCondition
    #expect(request.sense == nil)
    request.srbStatus = SRBStatus.error.withSense
    #expect(request.sense == .addressOutOfRange)
    request.scsiStatus = .busy
    #expect(request.sense == nil)
  }

  @Test func senseIsPrinted() {
    #expect(SCSISense.unrecoveredRead.description == "unrecovered read error (03/11/00)")
    #expect(SCSISense(key: .hardwareError, code: 0x44).description == "sense 04/44/00")
  }
}
