// SPDX-License-Identifier: Apache-2.0

#if !THREAD_SANITIZER
  import Foundation
  import Synchronization
  import TestSupport
  import Testing

  @testable import StorageVSC

  /// A host that rewrites its answers, its indices and the data without pause while the driver reads
  /// them: what is used was read once. The memory has guard pages; run it under AddressSanitizer too.
  /// These are races by intention, which ThreadSanitizer would report.
  @Suite(.serialized, .timeLimit(.minutes(180))) struct StorageRaceTests {
    #if ADDRESS_SANITIZER
      private static let standard = 500_000
    #else
      private static let standard = 50_000
    #endif
    /// Packets of the host in all; `SOAK_PACKETS` asks for more.
    static let packets =
      ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? standard

    @Test func everyAnswerThatIsUsedIsOneCopy() async throws {
      var bed = try await Bed()
      try bed.start()
      let agreement = try unwrap(bed.queue.agreement)
      let memory = HostileMemory()
      let race = StorageRace(memory)
      let racer = Racer(seed: 1) { race.stroke(&$0, breaksRings: true) }
      var random = Numbers(seed: 2)
      var sent = 0
      var counts = RacedDriver.Counts()
      while sent < Self.packets {
        // An index may be wrong already when the rings are taken up.
        guard var driver = try? RacedDriver(memory, agreement) else { continue }
        driver.counts = counts
        sent += driver.run(&random, racer)
        counts = driver.counts
      }
      racer.stop()
      #expect(racer.strokes > UInt64(sent) / 100)
      #expect(counts.succeeded > 0 && counts.failed > 0 && counts.ended > 0)
    }

    /// Start-up, disks and retries, with random hosts.
    @Test func noHostBreaksTheDriverMeanwhile() {
      let memory = HostileMemory()
      let race = StorageRace(memory)
      let racer = Racer(seed: 3) { race.stroke(&$0, breaksRings: false) }
      var random = Numbers(seed: 4)
      var sent = 0
      while sent < Self.packets / 20 {
        let input = (0..<(64 + Int(random.next() % 4096))).map { _ in
          UInt8(truncatingIfNeeded: random.next()) & (random.next() & 1 == 0 ? 0xFF : 0x0F)
        }
        sent += driveHostile(input, memory)
      }
      racer.stop()
    }
  }
#endif
