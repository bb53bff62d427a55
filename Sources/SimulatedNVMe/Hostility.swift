// SPDX-License-Identifier: Apache-2.0

import NVMeProtocol
import VMBus

/// Random numbers, the same for the same seed.
struct Hostility {
  private var state: UInt64

  init(seed: UInt64) { state = seed | 1 }

  mutating func word() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }

  /// 0 up to `limit`, exclusive.
  mutating func next(_ limit: UInt64) -> UInt64 {
    limit == 0 ? 0 : word().multipliedFullWidth(by: limit).high
  }
}

extension NVMeDevice {
  private func random(_ limit: UInt64) -> UInt64 { hostility?.next(limit) ?? 0 }
  private func randomWord() -> UInt64 { hostility?.word() ?? 0 }

  /// One thing that no controller may do.
  func beHostile() {
    switch random(65536) {
    // Rare: most of these end the driver.
    case 0: scribbleRegister()
    case 1...64: writeWhereItMay()
    case 65...128: tellNothing()
    case 129...8192: interrupt(Int(random(UInt64(settings.vectorCount))))
    default: for _ in 0...random(4) { inventCompletion() }
    }
  }

  /// A completion of any content in any queue, mostly one that the driver will take for new.
  private func inventCompletion() {
    let numbers = completions.indices.filter { completions[$0] != nil }
    guard !numbers.isEmpty else { return }
    let number = numbers[Int(random(UInt64(numbers.count)))]
    guard let queue = completions[number] else { return }
    var completion = NVMeCompletion()
    let word = randomWord()
    completion.result = UInt32(truncatingIfNeeded: word)
    completion.head = UInt16(truncatingIfNeeded: word >> 32)
    completion.queue = random(8) == 0 ? UInt16(truncatingIfNeeded: word >> 16) : UInt16(number)
    // Slots that there are, with any generation; now and then anything.
    completion.identifier = UInt16(truncatingIfNeeded: random(4) == 0 ? word >> 48 : random(1024))
    let status: UInt16 =
      random(2) == 0 ? 0 : UInt16(truncatingIfNeeded: randomWord()) & 0xFFFE
    completion.status = status | queue.phase
    // Right for the driver: it takes out what has the phase, wherever the device believes to be.
    if random(64) != 0 { post(completion, number) } else { postAnywhere(completion, queue) }
  }

  private func postAnywhere(_ completion: NVMeCompletion, _ queue: CompletionQueue) {
    let place = Int(random(UInt64(queue.entries)))
    let bytes = completion.wireBytes
    unsafe windows.with(queue.address &+ UInt64(place * 16), 16, .write) { entry in
      unsafe entry.copyBytes(from: bytes)
    }
  }

  /// Anything into memory that it was given, and an attempt at memory that it was not.
  private func writeWhereItMay() {
    guard let window = windows.writable(randomWord()) else { return }
    let count = Int(random(UInt64(min(window.byteCount, 256)))) + 1
    let offset = random(UInt64(window.byteCount - count + 1))
    let byte = UInt8(truncatingIfNeeded: randomWord())
    unsafe windows.with(window.address + offset, count, .write) { bytes in
      for index in bytes.indices { unsafe bytes[index] = byte &+ UInt8(truncatingIfNeeded: index) }
    }
    unsafe windows.with(window.address &+ UInt64(window.byteCount), 64, .write) { bytes in
      unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0xEE)
    }
  }

  private func scribbleRegister() {
    let offset = Int(random(16)) * 4
    // The driver's own registers stay: they are how it is followed.
    guard offset != NVMeRegister.configuration else { return }
    write32(UInt32(truncatingIfNeeded: randomWord()), offset)
  }

  /// An event that did not happen.
  private func tellNothing() {
    pendingEvents.append(NVMeEvent(rawValue: UInt32(truncatingIfNeeded: randomWord())))
  }
}
