// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct RealTimeClockTests {
  static func registers(at time: UInt64) -> [UInt8] {
    var clock = RealTimeClock()
    return [RealTimeClock.century, 9, 8, 7, 6, 4, 2, 0].map { register in
      clock.select(register)
      return clock.read(at: time)
    }
  }

  struct Moment {
    let time: UInt64
    let registers: [UInt8]
  }

  // Century, year, month, day, weekday (1 is Sunday), hours, minutes, seconds, in decimal digits.
  static let moments: [Moment] = [
    Moment(time: 0, registers: [0x19, 0x70, 0x01, 0x01, 5, 0, 0, 0]),
    Moment(time: 951_782_399, registers: [0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59]),
    Moment(time: 951_782_400, registers: [0x20, 0x00, 0x02, 0x29, 3, 0, 0, 0]),
    Moment(time: 1_795_416_850, registers: [0x20, 0x26, 0x11, 0x23, 2, 0x06, 0x54, 0x10]),
    Moment(time: 4_107_542_400, registers: [0x21, 0x00, 0x03, 0x01, 2, 0, 0, 0]),
  ]

  @Test(arguments: moments.indices) func theTimeIsTold(_ index: Int) {
    let moment = Self.moments[index]
    #expect(Self.registers(at: moment.time) == moment.registers)
  }

  @Test func itIsNeverBusy() {
    var clock = RealTimeClock()
    clock.select(0x0A)
    #expect(clock.read(at: 0) & 0x80 == 0)
    clock.select(0x0D)
    #expect(clock.read(at: 0) == 0x80)
    clock.select(0x8B)
    #expect(clock.read(at: 0) == 0x02)
  }
}
