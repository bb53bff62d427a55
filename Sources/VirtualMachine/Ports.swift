// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import Synchronization

/// The machine's ports: a serial port, a clock, power and reset. All others read as ones, as an empty bus
/// does.
final class Ports: Sendable {
  enum Event: Equatable {
    case powerOff
    case reset
  }

  private struct Serial {
    var port = SerialPort()
    /// The interrupt's level as KVM has it.
    var line = false
  }

  private let serial = Lock(Serial())
  private let clock = Lock(RealTimeClock())
  /// Which of the fixed power events the guest has enabled. None of them ever happens.
  private let enabledEvents = Atomic<UInt16>(0)
  private let output: @Sendable (UInt8) -> Void
  private let setSerialLine: @Sendable (Bool) -> Void

  /// - Parameters:
  ///   - output: takes what the guest sends, byte by byte.
  ///   - setSerialLine: sets the level of the serial port's interrupt.
  init(
    output: @escaping @Sendable (UInt8) -> Void, setSerialLine: @escaping @Sendable (Bool) -> Void
  ) {
    self.output = output
    self.setSerialLine = setSerialLine
  }

  /// One write of 1, 2 or 4 bytes.
  func write(_ port: UInt16, _ value: UInt32) -> Event? {
    switch port {
    case MachineLayout.serialPorts:
      serial.withLock { serial in
        let register = port - MachineLayout.serialPorts.lowerBound
        if let byte = serial.port.write(register, UInt8(truncatingIfNeeded: value)) {
          output(byte)
        }
        updateLine(&serial)
      }
    case MachineLayout.clockRegister:
      clock.withLock { $0.select(UInt8(truncatingIfNeeded: value)) }
    case MachineLayout.powerEvents + 2:
      enabledEvents.store(UInt16(truncatingIfNeeded: value), ordering: .relaxed)
    // Sleep state 5, and the bit that says to go there.
    case MachineLayout.powerControl where value >> 10 & 0xF == 5 + 8: return .powerOff
    case MachineLayout.keyboardCommand where value & 0xFF == 0xFE: return .reset
    case MachineLayout.resetControl where value & 4 != 0: return .reset
    default: break
    }
    return nil
  }

  func read(_ port: UInt16) -> UInt32 {
    switch port {
    case MachineLayout.serialPorts:
      return serial.withLock { serial in
        let value = serial.port.read(port - MachineLayout.serialPorts.lowerBound)
        updateLine(&serial)
        return UInt32(value)
      }
    case MachineLayout.clockValue:
      let seconds = vmbus_wall_clock() / 1_000_000_000
      return UInt32(clock.withLock { $0.read(at: seconds) })
    case MachineLayout.powerEvents: return 0
    case MachineLayout.powerEvents + 2: return UInt32(enabledEvents.load(ordering: .relaxed))
    // The machine is always in ACPI's mode.
    case MachineLayout.powerControl: return 1
    default: return .max
    }
  }

  /// Somebody types at the console.
  func receive(_ bytes: [UInt8]) {
    serial.withLock { serial in
      serial.port.receive(bytes)
      updateLine(&serial)
    }
  }

  private func updateLine(_ serial: inout Serial) {
    guard serial.port.interrupt != serial.line else { return }
    serial.line.toggle()
    setSerialLine(serial.line)
  }
}
