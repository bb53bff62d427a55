// SPDX-License-Identifier: Apache-2.0

/// A serial port as PCs have them (8250 with the FIFO of a 16550), at the register level. What is
/// sent is gone at once; what comes in waits at the other end until the guest is ready for it (RTS),
/// so that nothing is lost that somebody types before the guest has opened the port.
struct SerialPort {
  private enum Register {
    static let data: UInt16 = 0
    static let interruptEnable: UInt16 = 1
    static let interruptIdentification: UInt16 = 2
    static let lineControl: UInt16 = 3
    static let modemControl: UInt16 = 4
    static let lineStatus: UInt16 = 5
    static let modemStatus: UInt16 = 6
    static let scratch: UInt16 = 7
  }

  /// What waits for a guest that does not take it; more is lost.
  static let maximumWaiting = 65536

  private var interruptEnable: UInt8 = 0
  private var fifoControl: UInt8 = 0
  private var lineControl: UInt8 = 0
  private var modemControl: UInt8 = 0
  private var scratch: UInt8 = 0
  private var divisor: UInt16 = 0
  /// The transmitter is empty, and the guest has not been told since.
  private var hasSent = false
  private var waiting: [UInt8] = []
  /// How much of `waiting` has been taken.
  private var taken = 0

  private var showsDivisor: Bool { lineControl & 0x80 != 0 }
  /// What is sent comes back instead.
  private var isLooped: Bool { modemControl & 0x10 != 0 }
  private var isReady: Bool { modemControl & 2 != 0 || isLooped }
  private var hasData: Bool { isReady && taken < waiting.count }

  /// The level of the interrupt line.
  var interrupt: Bool {
    (interruptEnable & 1 != 0 && hasData) || (interruptEnable & 2 != 0 && hasSent)
  }

  /// The guest writes a register, counted from the first port.
  ///
  /// - Returns: a byte that was sent.
  mutating func write(_ register: UInt16, _ value: UInt8) -> UInt8? {
    switch register {
    case Register.data where showsDivisor: divisor = divisor & 0xFF00 | UInt16(value)
    case Register.data:
      hasSent = true
      if !isLooped { return value }
      receive([value])
    case Register.interruptEnable where showsDivisor:
      divisor = divisor & 0xFF | UInt16(value) << 8
    case Register.interruptEnable:
      // An empty transmitter interrupts as soon as that is asked for.
      if value & 2 != 0, interruptEnable & 2 == 0 { hasSent = true }
      interruptEnable = value & 0xF
    case Register.interruptIdentification:
      fifoControl = value
      // What is in the FIFO goes; the rest has not come yet.
      if value & 2 != 0, isReady { drop(16) }
    case Register.lineControl: lineControl = value
    case Register.modemControl: modemControl = value & 0x1F
    case Register.scratch: scratch = value
    default: break
    }
    return nil
  }

  /// The guest reads a register.
  mutating func read(_ register: UInt16) -> UInt8 {
    switch register {
    case Register.data: return showsDivisor ? UInt8(truncatingIfNeeded: divisor) : take()
    case Register.interruptEnable:
      return showsDivisor ? UInt8(truncatingIfNeeded: divisor >> 8) : interruptEnable
    case Register.interruptIdentification: return identifyInterrupt()
    case Register.lineControl: return lineControl
    case Register.modemControl: return modemControl
    // The transmitter is always empty.
    case Register.lineStatus: return 0x60 | (hasData ? 1 : 0)
    case Register.modemStatus: return modemStatus
    case Register.scratch: return scratch
    default: return 0xFF
    }
  }

  private mutating func identifyInterrupt() -> UInt8 {
    let fifo: UInt8 = fifoControl & 1 != 0 ? 0xC0 : 0
    if interruptEnable & 1 != 0, hasData { return fifo | 4 }
    if interruptEnable & 2 != 0, hasSent {
      // Reading it is the answer to this one.
      hasSent = false
      return fifo | 2
    }
    return fifo | 1
  }

  private var modemStatus: UInt8 {
    // The other side is there and ready; or, looped, what this side says.
    guard isLooped else { return 0xB0 }
    return (modemControl & 2) << 3 | (modemControl & 1) << 5 | (modemControl & 0xC) << 4
  }

  private mutating func take() -> UInt8 {
    guard hasData else { return 0 }
    let byte = waiting[taken]
    drop(1)
    return byte
  }

  private mutating func drop(_ count: Int) {
    taken += min(count, waiting.count - taken)
    if taken == waiting.count { (waiting, taken) = ([], 0) }
  }

  /// Bytes come in.
  mutating func receive(_ bytes: [UInt8]) {
    waiting += bytes.prefix(max(Self.maximumWaiting - (waiting.count - taken), 0))
  }
}
