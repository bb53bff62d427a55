// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import TestSupport
import Testing

/// Hosts that lie to the paravisor: garbage, wrong versions, wrong offers, wrong answers, at the wrong time.
/// The paravisor goes on, passes on what is lawful and nothing else, and its own channel opens.
@Suite(.timeLimit(.minutes(5))) struct LyingHostTests {
  @Test func anHonestHostIsRelayed() throws {
    let machine = try LiedToParavisor()
    defer { machine.stop() }
    // Its guest describes a ring, and opens and closes a channel.
    #expect(try machine.play([3, 0, 3, 5]) == 2)
    #expect(machine.paravisor.refusals == 0)
  }

  @Test func randomLies() throws {
    let machine = try LiedToParavisor()
    defer { machine.stop() }
    var random = Numbers(seed: 11)
    var offers = 0
    for round in 0..<300 {
      var bytes = (0..<Int.random(in: 1...200, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      // Most of them tell the truth more often than not.
      for index in bytes.indices.dropFirst(32) where round % 4 != 0 && index % 4 != 0 {
        bytes[index] &= 0x7F
      }
      offers += try machine.play(bytes)
    }
    #expect(offers > 100)
    #expect(machine.paravisor.refusals > 10)
  }

  /// The paravisor's thread is its guests', too.
  @Test func aHostThatNeverStopsTalkingHoldsNobodyUp() throws {
    let machine = try LiedToParavisor(floods: true)
    defer { machine.stop() }
    for _ in 0..<20 { try machine.play([]) }
    #expect(machine.paravisor.refusals > 0)
  }
}
