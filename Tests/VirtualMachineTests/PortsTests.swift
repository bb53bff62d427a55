// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import VirtualMachine

@Suite struct PortsTests {
  /// What a machine's ports have done.
  final class Bed: Sendable {
    let sent = Lock<[UInt8]>([])
    let levels = Lock<[Bool]>([])

    func makePorts() -> Ports {
      Ports(
        output: { [self] byte in sent.withLock { $0.append(byte) } },
        setSerialLine: { [self] level in levels.withLock { $0.append(level) } })
    }
  }

  @Test func powerGoesOffBySleepState5Alone() {
    let ports = Bed().makePorts()
    // SLP_TYP in bits 10 to 12, SLP_EN in bit 13.
    #expect(ports.write(0x604, 0x3400) == .powerOff)
    #expect(ports.write(0x604, 0x1400) == nil)
    #expect(ports.write(0x604, 0x2000) == nil)
    #expect(ports.write(0x604, 0) == nil)
  }

  @Test func thereAreTwoWaysToReset() {
    let ports = Bed().makePorts()
    #expect(ports.write(0x64, 0xFE) == .reset)
    #expect(ports.write(0x64, 0xD1) == nil)
    #expect(ports.write(0xCF9, 6) == .reset)
    #expect(ports.write(0xCF9, 2) == nil)
  }

  @Test func powerEventsAreRemembered() {
    let ports = Bed().makePorts()
    #expect(ports.write(0x602, 0x20) == nil)
    #expect(ports.read(0x602) == 0x20)
    #expect(ports.read(0x600) == 0 && ports.read(0x604) == 1)
  }

  @Test func elsewhereIsNothing() {
    let ports = Bed().makePorts()
    for port: UInt16 in [0, 0x60, 0x2F8, 0x3F7, 0x400, 0xCF8, 0xCFC, .max] {
      #expect(ports.write(port, .max) == nil)
      #expect(ports.read(port) == .max)
    }
  }

  @Test func theSerialLineIsSetWhereItChanges() {
    let bed = Bed()
    let ports = bed.makePorts()
    _ = ports.write(0x3FC, 0x0B)
    _ = ports.write(0x3F9, 1)
    ports.receive([0x61, 0x62])
    #expect(ports.read(0x3F8) == 0x61)
    #expect(ports.read(0x3F8) == 0x62)
    _ = ports.write(0x3F8, 0x21)
    #expect(bed.levels.withLock { $0 } == [true, false])
    #expect(bed.sent.withLock { $0 } == [0x21])
  }
}
