// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

/// What the disks of this host know of SCSI, written by hand from the standards: each command with
/// the bits that it looks at, and the test that shows what it does.
struct SCSICoverage: Sendable, CustomTestStringConvertible {
  let name: String
  let code: UInt8
  var action: UInt8?
  /// The bits of the whole command, in hexadecimal, as REPORT SUPPORTED OPERATION CODES has them:
  /// the code and the service action stand as themselves.
  let usage: String
  /// A whole command that is good, and its data.
  let good: Command
  let check: @Sendable () throws -> Void

  var testDescription: String { name }

  /// The usage as bytes.
  var bytes: [UInt8] {
    let digits = Array(usage.filter { $0 != " " })
    return stride(from: 0, to: digits.count, by: 2).compactMap {
      UInt8(String(digits[$0...($0 + 1)]), radix: 16)
    }
  }

  static let block = pattern(512, seed: 7)
  private static let zero10: [UInt8] = [0, 0, 0, 0, 0, 0, 0]

  static let table: [SCSICoverage] = [
    SCSICoverage(
      name: "TEST UNIT READY", code: 0x00, usage: "00 00 00 00 00 00",
      good: Command([0, 0, 0, 0, 0, 0]), check: SCSIStateTests.checkStartStop),
    SCSICoverage(
      name: "REQUEST SENSE", code: 0x03, usage: "03 01 00 00 FF 00",
      good: Command([3, 0, 0, 0, 18, 0], room: 18), check: SCSIStateTests.checkStartStop),
    SCSICoverage(
      name: "READ(6)", code: 0x08, usage: "08 1F FF FF FF 00",
      good: Command([8, 0, 0, 1, 1, 0], room: 512), check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE(6)", code: 0x0A, usage: "0A 1F FF FF FF 00",
      good: Command([10, 0, 0, 1, 1, 0], writing: block), check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "INQUIRY", code: 0x12, usage: "12 01 FF FF FF 00",
      good: Command([0x12, 0, 0, 0, 36, 0], room: 36), check: SCSICoverageTests.checkPages),
    SCSICoverage(
      name: "MODE SELECT(6)", code: 0x15, usage: "15 11 00 00 FF 00",
      good: SCSIStateTests.select(SCSIStateTests.caching),
      check: { try SCSIStateTests.checkModeSelect(long: false) }),
    SCSICoverage(
      name: "MODE SENSE(6)", code: 0x1A, usage: "1A 08 FF FF FF 00",
      good: Command([0x1A, 0, 0x3F, 0, 36, 0], room: 36),
      check: { try SCSIStateTests.checkModeSelect(long: false) }),
    SCSICoverage(
      name: "START STOP UNIT", code: 0x1B, usage: "1B 01 00 00 05 00",
      good: Command(SCSIStateTests.start), check: SCSIStateTests.checkStartStop),
    SCSICoverage(
      name: "READ CAPACITY(10)", code: 0x25, usage: "25 00 00000000 00 00 00 00",
      good: Command([0x25, 0, 0] + zero10, room: 8), check: SCSICoverageTests.checkCapacity),
    SCSICoverage(
      name: "READ(10)", code: 0x28, usage: "28 18 FFFFFFFF 00 FF FF 00",
      good: Command([0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], room: 512),
      check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE(10)", code: 0x2A, usage: "2A 18 FFFFFFFF 00 FF FF 00",
      good: Command([0x2A, 0, 0, 0, 0, 1, 0, 0, 1, 0], writing: block),
      check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE AND VERIFY(10)", code: 0x2E, usage: "2E 12 FFFFFFFF 00 FF FF 00",
      good: SCSIStateTests.verify(0x2E, 0, 1, 1, data: block),
      check: { try SCSIStateTests.checkWriteAndVerify(0x2E) }),
    SCSICoverage(
      name: "VERIFY(10)", code: 0x2F, usage: "2F 16 FFFFFFFF 00 FF FF 00",
      good: SCSIStateTests.verify(0x2F, 0, 1, 1),
      check: { try SCSIStateTests.checkVerify(0x2F) }),
    SCSICoverage(
      name: "SYNCHRONIZE CACHE(10)", code: 0x35, usage: "35 02 FFFFFFFF 00 FF FF 00",
      good: Command([0x35, 2, 0] + zero10), check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE SAME(10)", code: 0x41, usage: "41 08 FFFFFFFF 00 FF FF 00",
      good: SCSIProvisioningTests.same(0, 1, long: false, data: block),
      check: { try SCSIProvisioningTests.checkWriteSame(long: false) }),
    SCSICoverage(
      name: "UNMAP", code: 0x42, usage: "42 00 00000000 00 FF FF 00",
      good: SCSIProvisioningTests.unmap(SCSIProvisioningTests.list([(1, 1)])),
      check: SCSIProvisioningTests.checkUnmap),
    SCSICoverage(
      name: "MODE SELECT(10)", code: 0x55, usage: "55 11 00 00 00 00 00 FF FF 00",
      good: SCSIStateTests.select(SCSIStateTests.caching, long: true),
      check: { try SCSIStateTests.checkModeSelect(long: true) }),
    SCSICoverage(
      name: "MODE SENSE(10)", code: 0x5A, usage: "5A 18 FF FF 00 00 00 FF FF 00",
      good: Command([0x5A, 8, 0x3F, 0, 0, 0, 0, 0, 40, 0], room: 40),
      check: { try SCSIStateTests.checkModeSelect(long: true) }),
    SCSICoverage(
      name: "READ(16)", code: 0x88, usage: "88 18 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: Command(SCSIDiskTests.read16(1, 1), room: 512), check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE(16)", code: 0x8A, usage: "8A 18 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: Command(SCSIDiskTests.write16(1, 1), writing: block),
      check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE AND VERIFY(16)", code: 0x8E, usage: "8E 12 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: SCSIStateTests.verify(0x8E, 0, 1, 1, data: block),
      check: { try SCSIStateTests.checkWriteAndVerify(0x8E) }),
    SCSICoverage(
      name: "VERIFY(16)", code: 0x8F, usage: "8F 16 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: SCSIStateTests.verify(0x8F, 0, 1, 1),
      check: { try SCSIStateTests.checkVerify(0x8F) }),
    SCSICoverage(
      name: "SYNCHRONIZE CACHE(16)", code: 0x91, usage: "91 02 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: Command(SCSIDiskTests.read16(1, 1, code: 0x91)), check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE SAME(16)", code: 0x93, usage: "93 09 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: SCSIProvisioningTests.same(0, 1, data: block),
      check: { try SCSIProvisioningTests.checkWriteSame(long: true) }),
    SCSICoverage(
      name: "READ CAPACITY(16)", code: 0x9E, action: 0x10,
      usage: "9E 10 0000000000000000 FFFFFFFF 00 00",
      good: Command([0x9E, 0x10, 0] + zero10 + [0, 0, 0, 32, 0, 0], room: 32),
      check: SCSICoverageTests.checkCapacity),
    SCSICoverage(
      name: "GET LBA STATUS", code: 0x9E, action: 0x12,
      usage: "9E 12 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
      good: SCSIProvisioningTests.status(0), check: SCSIProvisioningTests.checkStatus),
    SCSICoverage(
      name: "REPORT LUNS", code: 0xA0, usage: "A0 00 FF 00 00 00 FFFFFFFF 00 00",
      good: SCSIControllerTests.reportLUNs(64), check: SCSICoverageTests.checkLUNs),
    SCSICoverage(
      name: "REPORT SUPPORTED OPERATION CODES", code: 0xA3, action: 0x0C,
      usage: "A3 0C 87 FF FF FF FFFFFFFF 00 00",
      good: SCSICoverageTests.report(), check: SCSICoverageTests.checkReport),
    SCSICoverage(
      name: "READ(12)", code: 0xA8, usage: "A8 18 FFFFFFFF FFFFFFFF 00 00",
      good: Command([0xA8, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], room: 512),
      check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE(12)", code: 0xAA, usage: "AA 18 FFFFFFFF FFFFFFFF 00 00",
      good: Command([0xAA, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], writing: block),
      check: SCSICoverageTests.checkMoves),
    SCSICoverage(
      name: "WRITE AND VERIFY(12)", code: 0xAE, usage: "AE 12 FFFFFFFF FFFFFFFF 00 00",
      good: SCSIStateTests.verify(0xAE, 0, 1, 1, data: block),
      check: { try SCSIStateTests.checkWriteAndVerify(0xAE) }),
    SCSICoverage(
      name: "VERIFY(12)", code: 0xAF, usage: "AF 16 FFFFFFFF FFFFFFFF 00 00",
      good: SCSIStateTests.verify(0xAF, 0, 1, 1),
      check: { try SCSIStateTests.checkVerify(0xAF) }),
  ]
}
