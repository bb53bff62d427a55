// SPDX-License-Identifier: Apache-2.0

import TestSupport
import Testing

@testable import VSC

@Suite struct RequestsTests {
  @Test func eachIdWorksOnce() {
    var requests = Requests<Int>(capacity: 4)
    var ids: Set<UInt64> = []
    for value in 0..<4 {
      if let id = requests.nextID { ids.insert(id) }
      requests.insert(value)
    }
    #expect(ids.count == 4 && !ids.contains(0))
    #expect(requests.isFull && requests.nextID == nil)
    let hasRoom = requests.insert(9)
    #expect(!hasRoom)
    var found: Set<Int> = []
    for id in ids {
      if let done = requests.complete(id) { found.insert(done.payload) }
      expectNone(requests.complete(id))
    }
    #expect(found == [0, 1, 2, 3] && requests.isEmpty)
  }

  @Test func illegalIdsFindNothing() throws {
    var requests = Requests<Int>(capacity: 4)
    let first = try unwrap(requests.nextID)
    requests.insert(1)
    expectSome(requests.complete(first))
    let second = try unwrap(requests.nextID)
    requests.insert(2)
    let illegal: [UInt64] = [
      // Stale, of the next generation, of no slot, of a free slot, made of nothing.
      first, second &+ 1 << 32, second | 4, second | 0xFFFF_FFFF, (second & ~0xFFFF_FFFF) | 1,
      0, .max, UInt64(bitPattern: .min), second & 0xFFFF_FFFF,
    ]
    for id in illegal where id != second {
      expectNone(requests.complete(id))
    }
    #expect(requests.count == 1)
    expectSome(requests.complete(second))
  }

  @Test func generationsGoRoundWithoutZero() throws {
    var requests = Requests<Int>(capacity: 1)
    unsafe requests.slots[0].generation = .max
    let id = try unwrap(requests.nextID)
    requests.insert(1)
    expectSome(requests.complete(id))
    #expect(requests.nextID == 1 << 32)
  }

  @Test func theLateStayUntilTheirCompletion() throws {
    var requests = Requests<Int>(capacity: 4)
    var ids: [UInt64] = []
    for deadline in [30, 10, 20] as [UInt64] {
      ids.append(try unwrap(requests.nextID))
      requests.insert(Int(deadline), deadline: deadline)
    }
    #expect(requests.nextDeadline == 10)
    var late: [Int] = []
    requests.expire(now: 9) { late.append($0) }
    #expect(late == [])
    requests.expire(now: 20, limit: 1) { late.append($0) }
    #expect(late.count == 1)
    requests.expire(now: 20) { late.append($0) }
    #expect(Set(late) == [10, 20] && requests.abandoned == 2 && requests.count == 3)
    requests.expire(now: 20) { late.append($0) }
    #expect(late.count == 2 && requests.nextDeadline == 30)
    let done = requests.complete(ids[1])
    switch done {
    case .some(let request): #expect(request.wasAbandoned && request.payload == 10)
    case .none: Issue.record("lost")
    }
    #expect(requests.abandoned == 1)
    var drained: [Int] = []
    requests.drain { drained.append($0) }
    #expect(drained == [30] && requests.isEmpty && requests.abandoned == 0)
  }
}
