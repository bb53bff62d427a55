// SPDX-License-Identifier: Apache-2.0

#if !THREAD_SANITIZER
  import Foundation
  import Platform
  import TestSupport
  import Testing

  /// A host that rewrites frames' headers, its indices and all else without pause while the driver reads
  /// them: what is used was read once. The buffers have guard pages; run it under AddressSanitizer too.
  /// These are races by intention, which ThreadSanitizer would report.
  @Suite(.timeLimit(.minutes(180))) struct NetworkRaceTests {
    #if ADDRESS_SANITIZER
      private static let standard = 500_000
    #else
      private static let standard = 50_000
    #endif
    /// Packets in all; `SOAK_PACKETS` asks for more.
    static let packets =
      ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? standard

    @Test func everyFrameThatIsUsedIsWhatOneCopySaid() throws {
      var random = Numbers(seed: 5)
      let worker = try Worker(.init(name: "network-test", spinRounds: 0))
      var counts = RacedNetwork.Counts()
      var (packets, runs) = (0, 0)
      while packets < Self.packets {
        var network = try RacedNetwork(worker, isReady: runs % 8 != 7, counts)
        packets += network.run(&random)
        counts = network.counts
        runs += 1
      }
      worker.stop()
      // The lawful ones come, and those that reach out of their message never.
      #expect(
        counts.frames[..<3].allSatisfy { $0 > 0 } && counts.frames[3...].allSatisfy { $0 == 0 })
      #expect(counts.sent > 0 && counts.malformed > 0 && counts.ended > 0)
    }
  }
#endif
