// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Foundation
import NVMe
import SimulatedNVMe
import TestSupport
import Testing
import VSC

/// Random controllers: none may make the driver trap, reach past its memory, lose a request, tell of one
/// twice, or hand out memory that is still lent. The memory has guard pages; run it under
/// AddressSanitizer too.
@Suite struct NVMeHostileTests {
  /// Completions and register values in all; `SOAK_PACKETS` asks for more.
  static let packets =
    ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? 100_000

  @Test func noControllerBreaksTheDriver() {
    var random = Numbers(seed: 1)
    let function = HostileFunction()
    var given = 0
    var runs = 0
    while given < Self.packets {
      let input = (0..<(64 + Int(random.next() % 4096))).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      given += driveHostile(input, function)
      runs += 1
    }
    // Otherwise the controllers would end too soon to say anything.
    #expect(given / runs > 50)
  }

  /// Over the socket, with a device that completes, interrupts, scribbles on its registers and writes
  /// where it may: the driver gets its data, right or wrong, or an error, and ends.
  @Test(arguments: 1...4)
  func aHostileDevice(seed: Int) async throws {
    var settings = NVMeSettings()
    settings.hostileSeed = UInt64(seed)
    settings.queueCount = 2
    let bed: NVMeBed
    do {
      bed = try await NVMeBed(settings, workers: 2, NVMeBed.impatient)
    } catch is NVMeOpenError {
      // What it says of itself can't be used.
      return
    }
    if let disk = try? await bed.controller.disk(1) {
      await withTaskGroup(of: Void.self) { group in
        for part in 0..<8 {
          group.addTask {
            for round in 0..<50 where disk.ended == nil {
              let offset = UInt64(part * 65536 + round * 512)
              try? await disk.write(at: offset, NVMeBed.pattern(5000, seed: round))
              _ = try? await disk.read(at: offset, count: 5000)
            }
          }
        }
      }
    }
    await bed.close()
    #expect(bed.device.statistics.commands > 0)
  }
}
