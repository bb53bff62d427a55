// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct SerialPortTests {
  /// A port that its guest has opened: FIFO on, ready to receive.
  static func opened() -> SerialPort {
    var port = SerialPort()
    _ = port.write(2, 0x07)
    _ = port.write(4, 0x0B)
    return port
  }

  @Test func whatIsSentIsGone() {
    var port = Self.opened()
    #expect(port.write(0, 0x41) == 0x41)
    #expect(port.read(5) == 0x60)
    #expect(!port.interrupt)
  }

  @Test func anEmptyTransmitterInterruptsOnce() {
    var port = Self.opened()
    _ = port.write(1, 2)
    #expect(port.interrupt)
    #expect(port.read(2) == 0xC2)
    #expect(!port.interrupt && port.read(2) == 0xC1)
    _ = port.write(0, 0x41)
    #expect(port.interrupt)
  }

  @Test func whatComesInInterruptsUntilItIsTaken() {
    var port = Self.opened()
    _ = port.write(1, 1)
    port.receive([0x61, 0x62])
    #expect(port.interrupt && port.read(2) == 0xC4 && port.read(5) == 0x61)
    #expect(port.read(0) == 0x61)
    #expect(port.interrupt)
    #expect(port.read(0) == 0x62)
    #expect(!port.interrupt && port.read(5) == 0x60)
    #expect(port.read(0) == 0)
  }

  // A kernel clears the FIFO when it opens the port.
  @Test func whatIsTypedBeforeTheGuestIsReadyIsKept() {
    var port = SerialPort()
    port.receive([0x61])
    _ = port.write(2, 0x07)
    #expect(port.read(5) == 0x60)
    _ = port.write(4, 0x0B)
    #expect(port.read(5) == 0x61 && port.read(0) == 0x61)
  }

  @Test func clearingTheFIFODropsSixteen() {
    var port = Self.opened()
    port.receive(Array(0..<20))
    _ = port.write(2, 0x07)
    #expect((0..<4).map { _ in port.read(0) } == [16, 17, 18, 19])
  }

  @Test func nobodyCanFillTheMemory() {
    var port = Self.opened()
    port.receive([UInt8](repeating: 1, count: SerialPort.maximumWaiting + 5))
    var count = 0
    while port.read(5) & 1 != 0 {
      _ = port.read(0)
      count += 1
    }
    #expect(count == SerialPort.maximumWaiting)
  }

  @Test func registersBehindTheDivisorLatch() {
    var port = Self.opened()
    _ = port.write(3, 0x83)
    _ = port.write(0, 0x01)
    _ = port.write(1, 0x02)
    #expect(port.read(0) == 1 && port.read(1) == 2)
    _ = port.write(3, 0x03)
    #expect(port.read(1) == 0 && port.read(3) == 3)
    _ = port.write(7, 0x5A)
    #expect(port.read(7) == 0x5A)
  }

  // How Linux finds out that there is a port: the loop, and what it shows of the modem lines.
  @Test func theLoopShowsWhatIsSaid() {
    var port = SerialPort()
    _ = port.write(4, 0x1A)
    #expect(port.read(6) & 0xF0 == 0x90)
    #expect(port.write(0, 0x42) == nil)
    #expect(port.read(0) == 0x42)
    _ = port.write(4, 0)
    #expect(port.read(6) == 0xB0)
  }
}
