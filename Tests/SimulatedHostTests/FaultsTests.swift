// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import SimulatedHost

@Suite struct FaultsTests {
  @Test func plansAreReadAsPeopleWriteThem() {
    #expect(FaultPlan("drop") == FaultPlan(.drop))
    #expect(FaultPlan("twice:after=3:count=2") == FaultPlan(.twice, after: 3, count: 2))
    #expect(FaultPlan("delay:ms=7") == FaultPlan(.delay(7_000_000)))
    #expect(FaultPlan("crash:after=1000") == FaultPlan(.crash, after: 1000))
  }

  @Test(arguments: [
    "", ":", "explode", "drop:after", "drop:after=", "drop:after=-1", "drop:after=x",
    "drop:when=1", "delay:ms=99999999999",
  ])
  func otherTextIsNoPlan(_ text: String) { #expect(FaultPlan(text) == nil) }

  @Test func aFaultHappensWhenItsTurnComes() {
    var faults = ChannelFaults([
      FaultPlan(.drop, after: 2, count: 2), FaultPlan(.twice, after: 3, count: 1),
    ])
    let happened = (0..<6).map { _ in faults.next() }
    // The two overlap at the fourth: the first plan goes first, the other has its turn after it.
    #expect(happened == [.none, .none, .drop, .drop, .twice, .none])
  }

  @Test func heldCompletionsComeOutWhenTheyAreDue() {
    var faults = ChannelFaults([])
    let payload: [UInt8] = [1, 2, 3]
    #expect(faults.nextDeadline == .max)
    faults.hold(unsafe payload.span.bytes, 7, until: 100)
    faults.hold(unsafe payload.span.bytes, 8, until: 50)
    #expect(faults.nextDeadline == 50)
    let early = faults.due(now: 49)
    #expect(early == nil)
    let first = faults.due(now: 60)
    #expect(first?.transactionID == 8 && first?.payload == payload)
    #expect(faults.nextDeadline == 100)
  }
}
