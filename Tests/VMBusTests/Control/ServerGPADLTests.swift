// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// GPADLs and rings that a guest gets wrong.
@Suite struct ServerGPADLTests {
  @Test func headersAreAnsweredWhateverIsWrong() throws {
    var server = try ServerTests.connected()
    func refusal(_ message: ControlMessage) throws -> ([ControlMessage], ServerAction?) {
      let actions = server.receive(message)
      return (try ServerTests.posts(actions), actions.last)
    }
    var (answer, error) = try refusal(ServerTests.header(9, 1))
    #expect(answer == [ServerTests.created(1, .unsuccessful, 9)])
    #expect(error == .refused(.unknownChannel(9)))
    (answer, error) = try refusal(ServerTests.header(1, 1, count: 0))
    #expect(answer == [ServerTests.created(1, .unsuccessful)])
    #expect(error == .refused(.invalidGPADL(1, .noRanges)))
    (answer, error) = try refusal(ServerTests.header(1, 1, length: 71))
    #expect(error == .refused(.invalidGPADL(1, .length(71))))
    (answer, error) = try refusal(ServerTests.header(1, 1, length: 16, words: [0, 1]))
    #expect(answer == [ServerTests.created(1, .unsuccessful)])
    #expect(error == .refused(.invalidGPADL(1, .range(byteCount: 0, byteOffset: 0))))
    (answer, error) = try refusal(
      ServerTests.header(1, 1, length: 16, words: [0x1000_0000_1000, 1]))
    #expect(error == .refused(.invalidGPADL(1, .range(byteCount: 4096, byteOffset: 4096))))
    (answer, error) = try refusal(ServerTests.header(1, 1, length: 16, words: [0xFFFF_FFFF, 1]))
    #expect(error == .refused(.invalidGPADL(1, .pages(needed: 1_048_576, found: 1))))
    #expect(server.gpadls.isEmpty && server.gpadlWords == 0)
    // The id is not taken: none of them lived.
    #expect(server.receive(ServerTests.header(1, 1)) == [.createGPADL(1, 1)])
    (answer, error) = try refusal(ServerTests.header(1, 1))
    #expect(answer == [ServerTests.created(1, .unsuccessful)])
    #expect(error == .refused(.duplicateGPADL(1)))
    #expect(
      try ServerTests.posts(server.gpadlCompleted(1, .success)) == [
        ServerTests.created(1, .success)
      ])
  }

  @Test func bodiesOutOfTurn() throws {
    var server = try ServerTests.connected()
    func body(_ gpadl: GPADLID, _ words: [UInt64]) -> [ServerAction] {
      server.receive(.gpadlBody(GPADLBody { $0.gpadlID = gpadl }, words))
    }
    #expect(body(1, [1]) == [.refused(.unknownGPADL(1))])
    #expect(server.receive(ServerTests.header(1, 1, words: [8 * 4096])) == [])
    #expect(server.receive(ServerTests.header(1, 1)).last == .refused(.duplicateGPADL(1)))
    #expect(body(1, []) == [.refused(.invalidGPADL(1, .emptyFragment))])
    #expect(server.receive(ServerTests.teardown(1, 1)) == [.refused(.invalidGPADLState(1))])
    #expect(body(1, [1, 2, 3]) == [])
    #expect(server.gpadl(1, of: 1) == nil)
    #expect(body(1, [4, 5, 6, 7, 8, 9, 10]) == [.createGPADL(1, 1)])
    #expect(body(1, [1]) == [.refused(.invalidGPADLState(1))])
    _ = server.gpadlCompleted(1, .success)
    #expect(server.gpadl(1, of: 1)?.first?.gpns == Array(1...8))
    #expect(server.receive(ServerTests.teardown(2, 1)) == [.refused(.unknownGPADL(1))])
    #expect(server.receive(ServerTests.teardown(1, 1)) == [.tearDownGPADL(1, 1)])
    #expect(server.receive(ServerTests.teardown(1, 1)) == [.refused(.invalidGPADLState(1))])
    #expect(server.gpadl(1, of: 1) == nil)
    #expect(try ServerTests.posts(server.gpadlTornDown(1)) == [ClientTests.torndown(1)])
    #expect(server.receive(ServerTests.teardown(1, 1)) == [.refused(.unknownGPADL(1))])
  }

  @Test func aGuestCannotFillTheMemory() throws {
    var server = try ServerTests.connected(.v6_0, []) {
      $0.maximumGPADLs = 4
      $0.maximumGPADLWords = 9000
    }
    // Announced words count, whether they have come or not.
    _ = server.receive(ServerTests.header(1, 1, length: 65528, words: []))
    #expect(
      server.receive(ServerTests.header(1, 2, length: 65528, words: [])).last
        == .refused(.invalidGPADL(2, .limit)))
    for id: GPADLID in [2, 3, 4] {
      #expect(server.receive(ServerTests.header(1, id, words: [])) == [])
    }
    #expect(
      server.receive(ServerTests.header(1, 5, words: [])).last == .refused(.invalidGPADL(5, .limit))
    )
    #expect(server.gpadls.count == 4 && server.checkInvariants() == nil)
    _ = server.receive(.unload)
    #expect(server.gpadls.isEmpty && server.gpadlWords == 0)
  }

  @Test func ringsThatCannotBe() throws {
    var server = try ServerTests.connected()
    func refusal(_ message: ControlMessage) throws -> ServerAction? {
      let actions = server.receive(message)
      #expect(try ServerTests.posts(actions) == [ServerTests.openFailed])
      return actions.last
    }
    #expect(try refusal(ServerTests.open(1)) == .refused(.invalidRing(1, .gpadl(1))))
    let shapes: [(UInt16, UInt16, [UInt64])] = [
      (72, 1, [8 * 4096, 1, 2, 3, 4, 5, 6, 7, 8]),
      (32, 2, [4096, 1, 4096, 2]),
      (24, 1, [4096 | 1 << 32, 1, 2]),
      (24, 1, [4097, 1, 2]),
    ]
    for (index, shape) in shapes.enumerated() {
      let id = GPADLID(UInt32(index + 1))
      _ = server.receive(ServerTests.header(1, id, length: shape.0, count: shape.1, words: shape.2))
      _ = server.gpadlCompleted(id, .success)
      guard index > 0 else { continue }
      #expect(try refusal(ServerTests.open(id)) == .refused(.invalidRing(1, .shape(id))))
    }
    for offset: UInt32 in [0, 1, 7, 8, 9, .max] {
      #expect(
        try refusal(ServerTests.open(1, offset: offset))
          == .refused(.invalidRing(1, .downstreamOffset(offset, pages: 8))))
    }
    guard case .open? = server.receive(ServerTests.open(1, offset: 6)).first else {
      Issue.record("a good ring was refused")
      return
    }
    #expect(server.receive(ServerTests.open(1)) == [.refused(.invalidChannelState(1))])
  }

  @Test func aRingIsHeldUntilItsChannelIsClosed() throws {
    var server = try ServerTests.open()
    #expect(server.receive(ServerTests.teardown(1, 1)) == [])
    #expect(server.receive(ServerTests.teardown(1, 1)) == [.refused(.invalidGPADLState(1))])
    #expect(server.receive(ServerTests.close) == [.close(1)])
    #expect(server.receive(ServerTests.close) == [.refused(.invalidChannelState(1))])
    #expect(server.closeCompleted(1) == [.tearDownGPADL(1, 1)])
    #expect(try ServerTests.posts(server.gpadlTornDown(1)) == [ClientTests.torndown(1)])
  }
}
