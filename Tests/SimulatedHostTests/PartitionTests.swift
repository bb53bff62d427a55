// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import SystemPackage
import TestSupport
import Testing
import VMBus

@testable import SimulatedHost

@Suite(.timeLimit(.minutes(10))) struct PartitionTests {
  static func makeHost() throws -> SimulatedHost {
    try SimulatedHost(path: "/tmp/vmbus-test-partition-\(UInt32.random(in: 0 ... .max)).sock")
  }

  static func join(
    pages: UInt64 = 16, change: (inout LinkJoin, inout LinkRegion) -> Void = { _, _ in }
  ) -> [UInt8] {
    var join = LinkJoin()
    join.processorCount = 1
    join.regionCount = 1
    join.fileCount = 1
    var region = LinkRegion()
    region.firstPage = 0x100
    region.pageCount = pages
    change(&join, &region)
    return join.wireBytes + region.wireBytes
  }

  @Test func aGuestJoinsOnce() throws {
    let host = try Self.makeHost()
    let guest = try RawGuest(host)
    let memory = try MemoryFile(name: "test", byteCount: 16 * 4096)
    let event = try EventDescriptor()
    let descriptors = [memory.owned.rawValue, event.rawValue]
    #expect(try guest.call(.join, Self.join(), descriptors: descriptors) == .success)
    #expect(try guest.call(.join, Self.join(), descriptors: descriptors) == .invalidParameter)
    host.stop()
  }

  @Test func messagesThatBreakTheProtocolAreCounted() throws {
    let host = try Self.makeHost()
    let guest = try RawGuest(host)
    let memory = try MemoryFile(name: "test", byteCount: 16 * 4096)
    let event = try EventDescriptor()
    let descriptors = [memory.owned.rawValue, event.rawValue]
    #expect(try guest.call(.join, Self.join(), descriptors: descriptors) == .success)
    #expect(host.refusals == 0)
    var post = LinkPost()
    post.connectionID = 4
    post.messageType = SynIC.vmbusMessage
    post.payloadByteCount = 8
    // OpenChannel (5) without a connection, and a type that no version knows.
    for type: UInt8 in [5, 99] {
      #expect(
        try guest.call(.postMessage, post.wireBytes + [type, 0, 0, 0, 0, 0, 0, 0]) == .success)
    }
    #expect(host.refusals == 2)
    host.stop()
  }

  @Test func wrongNumbersOfAJoinAreRefused() throws {
    let host = try Self.makeHost()
    let memory = try MemoryFile(name: "test", byteCount: 16 * 4096)
    let event = try EventDescriptor()
    let descriptors = [memory.owned.rawValue, event.rawValue]
    let changes: [(inout LinkJoin, inout LinkRegion) -> Void] = [
      { join, _ in join.magic = 1 }, { join, _ in join.version = 9 },
      { join, _ in join.processorCount = 0 }, { join, _ in join.processorCount = 65 },
      { join, _ in join.processorCount = 2 }, { join, _ in join.fileCount = 0 },
      { join, _ in join.fileCount = 2 }, { join, _ in join.regionCount = 0 },
      { join, _ in join.regionCount = 2 }, { join, _ in join.regionCount = .max },
      { _, region in region.pageCount = 0 }, { _, region in region.pageCount = 17 },
      { _, region in region.pageCount = .max }, { _, region in region.fileOffset = 1 },
      { _, region in region.fileOffset = 4096 }, { _, region in region.fileOffset = .max },
      { _, region in region.firstPage = .max }, { _, region in region.file = 1 },
    ]
    for (index, change) in changes.enumerated() {
      let guest = try RawGuest(host)
      let status = try guest.call(.join, Self.join(change: change), descriptors: descriptors)
      #expect(status == .invalidParameter, "change \(index)")
    }
    host.stop()
  }

  @Test func memoryThatCanShrinkIsRefused() throws {
    let host = try Self.makeHost()
    let guest = try RawGuest(host)
    // An eventfd is no memory file; a pipe's end neither.
    let event = try EventDescriptor()
    let pipe = try FileDescriptor.pipe()
    #expect(
      try guest.call(.join, Self.join(), descriptors: [event.rawValue, event.rawValue])
        == .invalidParameter)
    let other = try RawGuest(host)
    #expect(
      try other.call(
        .join, Self.join(), descriptors: [pipe.readEnd.rawValue, event.rawValue])
        == .invalidParameter)
    try pipe.readEnd.close()
    try pipe.writeEnd.close()
    host.stop()
  }

  @Test func callsBeforeTheJoinAndNonsenseAreRefused() throws {
    let host = try Self.makeHost()
    let guest = try RawGuest(host)
    var post = LinkPost()
    post.connectionID = 4
    post.messageType = 1
    #expect(try guest.call(.postMessage, post.wireBytes) == .invalidConnectionID)
    #expect(try guest.call(.setSynIC, LinkSynIC().wireBytes) == .invalidParameter)
    #expect(try guest.call(.endOfMessage, LinkNumber(0).wireBytes) == .invalidParameter)
    post.payloadByteCount = 241
    #expect(
      try guest.call(.postMessage, post.wireBytes + [UInt8](repeating: 0, count: 241))
        == .invalidParameter)
    post.payloadByteCount = 100
    #expect(try guest.call(.postMessage, post.wireBytes) == .invalidParameter)
    for bytes: [UInt8] in [[0], [1, 2, 3], [99, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]] {
      #expect(try guest.call(bytes) == .invalidParameter)
    }
    host.stop()
  }

  @Test func randomCallsNeverEndTheHost() throws {
    let host = try Self.makeHost()
    var generator = Numbers(seed: 0x5EED)
    for _ in 0..<20 {
      let guest = try RawGuest(host)
      for _ in 0..<200 {
        var bytes = LinkHeader(.join).wireBytes
        bytes[0] = UInt8.random(in: 0...6, using: &generator)
        let count = Int.random(in: 0...300, using: &generator)
        bytes += (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        guard try guest.call(bytes) != nil else { break }
      }
    }
    // It still serves others.
    let memory = try MemoryFile(name: "test", byteCount: 16 * 4096)
    let event = try EventDescriptor()
    let guest = try RawGuest(host)
    #expect(
      try guest.call(.join, Self.join(), descriptors: [memory.owned.rawValue, event.rawValue])
        == .success)
    host.stop()
  }

  @Test func aGuestThatTakesNoAnswersDoesNotStopTheOthers() throws {
    let host = try Self.makeHost()
    let deaf = try RawGuest(host)
    // More answers than a socket holds: the host gives that guest up.
    var isCutOff = false
    for _ in 0..<5000 where !isCutOff {
      do {
        try deaf.socket.send(LinkHeader(.endOfMessage).wireBytes + LinkNumber(0).wireBytes)
      } catch {
        isCutOff = true
      }
    }
    let other = try RawGuest(host)
    #expect(try other.call(.setSynIC, LinkSynIC().wireBytes) == .invalidParameter)
    host.stop()
  }

  @Test func descriptorsThatNobodyTakesAreClosed() throws {
    let listener = try PacketListener(
      path: "/tmp/vmbus-test-fds-\(UInt32.random(in: 0 ... .max)).sock")
    let sender = try PacketSocket(connectingTo: listener.path)
    let accepted = try listener.accept()
    guard let receiver = accepted else {
      Issue.record("nobody came")
      return
    }
    let pipe = try FileDescriptor.pipe()
    try sender.send([1], descriptors: [pipe.writeEnd.rawValue, pipe.writeEnd.rawValue])
    try pipe.writeEnd.close()
    _ = try receiver.receive()
    // The end of the pipe is read when no write end is left.
    var buffer = [UInt8](repeating: 0, count: 1)
    let count = try unsafe buffer.withUnsafeMutableBytes { bytes in
      try unsafe pipe.readEnd.read(into: bytes)
    }
    #expect(count == 0)
    try pipe.readEnd.close()
  }

  @Test func anInterruptThatIsNoEventIsRefused() throws {
    let host = try Self.makeHost()
    let guest = try RawGuest(host)
    let memory = try MemoryFile(name: "test", byteCount: 16 * 4096)
    let pipe = try FileDescriptor.pipe()
    #expect(
      try guest.call(
        .join, Self.join(), descriptors: [memory.owned.rawValue, pipe.writeEnd.rawValue])
        == .invalidParameter)
    try pipe.readEnd.close()
    try pipe.writeEnd.close()
    host.stop()
  }

  @Test func aSecondHostAtTheSamePathIsRefused() throws {
    let host = try Self.makeHost()
    #expect(throws: Errno.addressInUse) { try SimulatedHost(path: host.path) }
    host.stop()
    // After its end the path is free, even for one whose socket was left behind.
    let next = try SimulatedHost(path: host.path)
    next.stop()
  }
}
