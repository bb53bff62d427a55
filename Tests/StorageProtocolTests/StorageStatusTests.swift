// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing

@Suite struct StorageStatusTests {
  @Test func flagsLieAboveTheCode() {
    let status = SRBStatus(rawValue: 0xC4)
    #expect(status.code == .error)
    #expect(status.hasSense)
    #expect(status.isQueueFrozen)
    #expect(status.description == "ERROR with sense, queue frozen")
    #expect(SRBStatus.error.withSense.rawValue == 0x84)
    #expect(SRBStatus(rawValue: 0x3F).description == "SRB status 0x3f")
  }

  @Test(
    arguments: [
      (0x01, 0), (0x05, 0x8000_0011), (0x20, 0xC000_00C0), (0x21, 0xC000_00C0), (0x08, 0xC000_00C0),
      (0x11, 0xC000_00C0), (0x09, 0xC000_00B5), (0x0B, 0xC000_00B5), (0x0A, 0xC000_009D),
      (0x22, 0xC000_0010), (0x15, 0xC000_0010), (0x12, 0x8000_0005), (0x16, 0xC000_0001),
      (0x02, 0xC000_0120), (0x04, 0xC000_0185), (0x84, 0xC000_0185), (0x3F, 0xC000_0185),
    ] as [(UInt8, UInt32)])
  func packetStatusFollowsTheRequest(_ pair: (UInt8, UInt32)) {
    #expect(SRBStatus(rawValue: pair.0).packetStatus.rawValue == pair.1)
  }

  @Test func statusesAreNamed() {
    #expect(NTStatus.revisionMismatch.description == "REVISION_MISMATCH")
    #expect(NTStatus(rawValue: 0xC000_0001).description == "UNSUCCESSFUL")
    #expect(NTStatus(rawValue: 0xC000_0002).description == "NTSTATUS 0xc0000002")
    #expect(SCSIStatus(rawValue: 2).description == "CHECK CONDITION")
    #expect(SCSIStatus(rawValue: 3).description == "SCSI status 0x3")
  }
}
