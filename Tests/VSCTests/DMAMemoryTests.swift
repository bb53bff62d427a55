// SPDX-License-Identifier: Apache-2.0

import TestSupport
import Testing

@testable import VSC

@Suite struct DMAMemoryTests {
  @Test func hostVisibleMemoryIsZeroAgainWhenItComesBack() throws {
    let pages = TestPages(count: 4)
    var pool = DMAPool<HostVisible>(pages.handle(isScrubbed: true), bufferByteCount: 8192)
    #expect(pool.available == 2)
    do {
      var buffer = try unwrap(pool.take())
      #expect(pool.available == 1)
      buffer.withMutableBytes(5000) { bytes in
        for index in 0..<5000 { bytes.storeBytes(of: 0xAA, toByteOffset: index, as: UInt8.self) }
      }
      let visible = unsafe pages.bytes.contains(0xAA)
      #expect(visible)
    }
    #expect(pool.available == 2)
    let zero = unsafe pages.bytes.allSatisfy { $0 == 0 }
    #expect(zero)
  }

  /// Offset and count of what is taken out of 5000 bytes.
  @Test(arguments: [(0, 5000), (0, 8192), (100, 4900), (100, 1000), (4999, 1), (8192, 4), (0, 0)])
  func whatIsMovedOutLeavesZerosBehind(_ offset: Int, _ count: Int) throws {
    let pages = TestPages(count: 2)
    var pool = DMAPool<HostVisible>(pages.handle(isScrubbed: true), bufferByteCount: 8192)
    let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 % 251 + 1) }
    var target = [UInt8](repeating: 0xEE, count: count)
    do {
      var buffer = try unwrap(pool.take())
      unsafe buffer.copyIn(bytes.span.bytes)
      var span = target.mutableSpan
      var out = unsafe span.mutableBytes
      buffer.moveOut(from: offset, into: &out)
      let left = unsafe pages.bytes[offset..<min(offset + count, 8192)].allSatisfy { $0 == 0 }
      #expect(left)
    }
    let expected = (offset..<offset + count).map { $0 < 5000 ? bytes[$0] : $0 < 8192 ? 0 : 0xEE }
    #expect(target == expected)
    let zero = unsafe pages.bytes.allSatisfy { $0 == 0 }
    #expect(zero)
  }

  @Test func whereNothingIsHiddenNothingIsScrubbed() throws {
    let pages = TestPages(count: 1)
    var pool = DMAPool<HostVisible>(pages.handle(isScrubbed: false), bufferByteCount: 4096)
    do {
      var buffer = try unwrap(pool.take())
      let secret: [UInt8] = [1, 2, 3]
      unsafe buffer.copyIn(secret.span.bytes)
    }
    let first = unsafe pages.bytes[0]
    #expect(first == 1 && !pool.isBounced)
  }

  @Test func buffersDoNotOverlapAndRunOut() throws {
    let pages = TestPages(count: 3)
    var pool = DMAPool<Encrypted>(pages.handle(isScrubbed: true), bufferByteCount: 4096)
    var first = try unwrap(pool.take())
    var second = try unwrap(pool.take())
    let third = try unwrap(pool.take())
    expectNone(pool.take())
    let (ones, twos) = ([UInt8](repeating: 1, count: 9000), [UInt8](repeating: 2, count: 9000))
    unsafe first.copyIn(ones.span.bytes)
    unsafe second.copyIn(twos.span.bytes)
    let counts = [0, 1, 2].map { value in unsafe pages.bytes.count { $0 == value } }
    #expect(counts == [4096, 4096, 4096])
    let pageNumbers = unsafe [
      first.pageNumbers[0], second.pageNumbers[0], third.pageNumbers[0],
    ]
    #expect(Set(pageNumbers) == [0, 1, 2])
  }

  @Test func memoryStaysWhileABufferIsThere() throws {
    let pages = TestPages(count: 2)
    weak let owner = pages.owner
    var kept: DMABuffer<HostVisible>?
    do {
      var pool = DMAPool<HostVisible>(pages.takeHandle(), bufferByteCount: 4096)
      kept = pool.take()
    }
    #expect(owner != nil)
    kept?.withMutableBytes(16) { $0.storeBytes(of: 7, as: UInt8.self) }
    kept = nil
    #expect(owner == nil)
  }

  @Test func aLentBufferIsNotFreedBeforeItIsTakenBack() throws {
    let pages = TestPages(count: 2)
    var pool = DMAPool<HostVisible>(pages.handle(isScrubbed: true), bufferByteCount: 4096)
    do {
      var buffer = try unwrap(pool.take())
      buffer.lend(100)
      #expect(buffer.isLent == true)
    }
    #expect(pool.available == 1)
    do {
      var buffer = try unwrap(pool.take())
      buffer.lend(100)
      // What the device wrote.
      unsafe pages.bytes[0] = 5
      unsafe pages.bytes[4096] = 5
      buffer.takeBack()
    }
    #expect(pool.available == 1)
    // One was scrubbed; the other is the device's still.
    let touched = unsafe pages.bytes.count { $0 == 5 }
    #expect(touched == 1)
  }

  @Test func aPoolWithLentBuffersLetsItsMemoryGo() throws {
    let pages = TestPages(count: 1)
    weak let owner = pages.owner
    do {
      var pool = DMAPool<HostVisible>(pages.takeHandle(), bufferByteCount: 4096)
      var buffer = try unwrap(pool.take())
      buffer.lend(1)
    }
    // The transport has its own hold on it until the device is closed.
    #expect(owner == nil)
  }
}

/// Memory with the page numbers 0, 1, 2...
@safe
final class TestPages {
  final class Owner: Sendable {}

  let bytes: UnsafeMutableRawBufferPointer
  let numbers: UnsafeMutablePointer<GPN>
  var owner: Owner? = Owner()

  init(count: Int) {
    unsafe bytes = .allocate(byteCount: count * 4096, alignment: 4096)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe numbers = .allocate(capacity: count)
    for page in 0..<count { unsafe numbers[page] = UInt64(page) }
  }

  deinit {
    unsafe bytes.deallocate()
    unsafe numbers.deallocate()
  }

  func handle(isScrubbed: Bool) -> DMAPages {
    unsafe DMAPages(
      start: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count, pageNumbers: numbers,
      isScrubbed: isScrubbed, owner: owner ?? Owner())
  }

  /// The same, and only the handle keeps the owner from now on.
  func takeHandle() -> DMAPages {
    defer { owner = nil }
    return handle(isScrubbed: true)
  }
}
