// SPDX-License-Identifier: Apache-2.0

import Foundation
import SimulatedHost
import StorageProtocol
import Testing

/// Writes answers of a disk as hexadecimal text, for programs that others wrote to read them:
/// `scripts/test-scsi`.
@Suite struct SCSIDump {
  static var directory: String? { ProcessInfo.processInfo.environment["VMBUS_SCSI_DUMP"] }

  @Test(.enabled(if: directory != nil, "only for scripts/test-scsi")) func answers() throws {
    let directory = try #require(Self.directory)
    let images = TemporaryDirectory()
    let path = images.disk([UInt8](repeating: 7, count: 65536))
    let bench = StorageBench(
      try SCSIAnswerTests.controller(
        SCSIDisk(.open(path: path), physicalBlockSize: 4096, identity: testIdentity)))
    var commands: [(String, Command)] = [
      ("inquiry", SCSIAnswerTests.inquiry(nil)),
      ("mode-sense-6", Command([0x1A, 0, 0x3F, 0, 255, 0], room: 255)),
      ("mode-sense-10", Command([0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255, 0], room: 255)),
      ("mode-sense-control", Command([0x5A, 0, 0x0A, 0, 0, 0, 0, 0, 255, 0], room: 255)),
      ("luns", SCSIControllerTests.reportLUNs(64)),
    ]
    for page in [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2] as [UInt8] {
      commands.append(("vpd-\(String(page, radix: 16))", SCSIAnswerTests.inquiry(page)))
    }
    #expect(
      SCSIProvisioningTests.unmap(SCSIProvisioningTests.list([(32, 64)])).run(on: bench).isGood)
    commands.append(("lba-status", SCSIProvisioningTests.status(0)))
    for (name, command) in commands {
      let answer = command.run(on: bench)
      #expect(answer.isGood)
      try Self.write(answer.data, to: "\(directory)/\(name)")
    }
    // Sense data in both formats: a field of the command, a block, and a unit attention.
    bench.controller.withFaults(lun: 0) {
      $0.inject(StorageFault(.sense(.unrecoveredRead), blocks: 9...9))
    }
    for format in ["fixed", "descriptor"] {
      if format == "descriptor" {
        #expect(SCSIStateTests.select(SCSIStateTests.control).run(on: bench).isGood)
      }
      var protected = SCSIDiskTests.read16(0, 1)
      protected[1] = 0x80
      for (name, cdb) in [("field", protected), ("block", SCSIDiskTests.read16(4, 8))] {
        let answer = Command(cdb, room: 4096).run(on: bench)
        try Self.write(answer.payload, to: "\(directory)/sense-\(name)-\(format)")
      }
    }
  }

  static func write(_ bytes: [UInt8], to path: String) throws {
    let text = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
      .joined(separator: " ")
    try (text + "\n").write(toFile: path, atomically: true, encoding: .utf8)
  }
}
