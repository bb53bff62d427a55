// SPDX-License-Identifier: Apache-2.0

import TestSupport
import Testing

@testable import VSC

/// Buffers of all sizes out of one pool.
@Suite struct DMAPoolTests {
  static let largest = 64 * 1024

  func pool(_ pages: TestPages, isScrubbed: Bool = true) -> DMAPool<HostVisible> {
    DMAPool(pages.handle(isScrubbed: isScrubbed), bufferByteCount: Self.largest)
  }

  // MARK: - Sizes

  /// Bytes that are asked for, and those that a buffer for them takes up.
  @Test(arguments: [
    (0, 512), (1, 512), (512, 512), (513, 1024), (4095, 4096), (4096, 4096), (4097, 8192),
    (32768, 32768), (32769, 65536), (65536, 65536),
  ])
  func aBufferTakesUpAPowerOfTwoOrABlock(_ wanted: Int, _ found: Int) throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    let buffer = try unwrap(pool.take(wanted))
    #expect(buffer.byteCount == found)
    #expect(pool.statistics.inUse == found)
  }

  @Test func moreThanTheLargestIsNeverThere() {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    expectNone(pool.take(Self.largest + 1))
    expectNone(pool.take(.max))
    #expect(pool.statistics.waits == 0)
  }

  /// Blocks that are no power of two are not cut where that would waste most of them.
  @Test(arguments: [(4096, 4096), (6145, 12288), (8192, 12288)])
  func blocksNeedNotBePowersOfTwo(_ wanted: Int, _ found: Int) throws {
    let pages = TestPages(count: 6)
    var pool = DMAPool<HostVisible>(pages.handle(isScrubbed: true), bufferByteCount: 12288)
    let buffer = try unwrap(pool.take(wanted))
    #expect(buffer.byteCount == found)
  }

  @Test func aBufferFillsWholePagesOrCrossesNone() throws {
    let pages = TestPages(count: 128)
    var pool = pool(pages)
    var kept = Buffers()
    for wanted in [512, 4096, 1024, 512, 8192, 2048, 512, 16384] {
      let buffer = try unwrap(pool.take(wanted))
      let (page, offset) = unsafe (Int(buffer.pageNumbers[0]), Int(buffer.byteOffset))
      let address = unsafe buffer.start - pages.bytes.baseAddress.unsafelyUnwrapped
      // The numbers of these pages are their places.
      #expect(page * 4096 + offset == address)
      #expect(wanted < 4096 ? offset + wanted <= 4096 : offset == 0)
      kept.put(buffer)
    }
  }

  // MARK: - Contents

  /// No byte of it is zero.
  static let pattern = (0..<largest + 4096).map { UInt8(truncatingIfNeeded: ($0 &* 7) % 251) | 1 }

  /// Each size from 512 bytes to the largest, at each offset to a cache line, a block and a page at
  /// which somebody's memory may begin, both directions: nothing beside the bytes is touched, and what
  /// was exposed is gone.
  @Test(arguments: Array(stride(from: 512, through: largest, by: 512)))
  func eachSizeGoesInAndOutAtEachOffset(_ count: Int) throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    for offset in [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 63, 64, 511, 512, 4095, 4096] {
      let memory = unsafe Self.pattern.span.bytes.extracting(offset..<offset + count)
      let untouched = [UInt8](repeating: 0xEE, count: offset + count + 8)
      var target = untouched
      do {
        var buffer = try unwrap(pool.take(count))
        buffer.copyIn(memory)
        buffer.lend(count)
        // What the device finds there.
        let found = unsafe UnsafeRawBufferPointer(start: buffer.start, count: count)
        let isThere = unsafe areEqual(found.bytes, memory)
        #expect(isThere)
        buffer.takeBack()
        var span = target.mutableSpan
        var all = unsafe span.mutableBytes
        var part = all._mutatingExtracting(offset..<offset + count)
        buffer.moveOut(from: 0, into: &part)
      }
      let end = offset + count
      let (bytes, before) = unsafe (target.span.bytes, untouched.span.bytes)
      let isBack = areEqual(bytes.extracting(offset..<end), memory)
      let restIsUntouched =
        areEqual(bytes.extracting(first: offset), before.extracting(first: offset))
        && areEqual(bytes.extracting(droppingFirst: end), before.extracting(droppingFirst: end))
      #expect(isBack)
      #expect(restIsUntouched)
    }
    let zeroes = unsafe [UInt8](repeating: 0, count: pages.bytes.count)
    let isZero = unsafe areEqual(UnsafeRawBufferPointer(pages.bytes).bytes, zeroes.span.bytes)
    #expect(isZero)
    let statistics = pool.statistics
    #expect(statistics.copiedIn == 16 * count && statistics.copiedOut == 16 * count)
    #expect(statistics.scrubbed == 16 * count)
    #expect(statistics.inUse == 0 && pool.available == 2)
  }

  /// What lies beside the exposed bytes, in the same buffer and in its neighbours, is not touched.
  @Test(arguments: [(512, 100), (512, 512), (4096, 1), (4096, 513), (65536, 5000), (65536, 65536)])
  func onlyWhatWasExposedIsScrubbed(_ size: Int, _ exposed: Int) throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    var start = 0
    do {
      var buffer = try unwrap(pool.take(size))
      start = unsafe buffer.start - pages.bytes.baseAddress.unsafelyUnwrapped
      let secret = [UInt8](repeating: 0xA5, count: exposed)
      unsafe buffer.copyIn(secret.span.bytes)
      buffer.lend(exposed)
      buffer.takeBack()
      for index in unsafe pages.bytes.indices
      where index < start || index >= start + exposed {
        unsafe pages.bytes[index] = 0x77
      }
    }
    let isGone = unsafe pages.bytes[start..<start + exposed].allSatisfy { $0 == 0 }
    #expect(isGone)
    let others = unsafe pages.bytes.count { $0 == 0x77 }
    #expect(others == 32 * 4096 - exposed)
    #expect(pool.statistics.scrubbed == exposed)
  }

  @Test func clearingLeavesOnlyZerosAndExposesNothing() throws {
    for isScrubbed in [true, false] {
      let pages = TestPages(count: 16)
      var pool = pool(pages, isScrubbed: isScrubbed)
      var buffer = try unwrap(pool.take(4096))
      let bytes = [UInt8](repeating: 9, count: 1000)
      unsafe buffer.copyIn(bytes.span.bytes)
      buffer.clear(from: 200, count: 10_000)
      let counts = unsafe buffer.bytes.withUnsafeBytes { bytes in
        unsafe (bytes.count { $0 == 9 }, bytes.count { $0 == 0 })
      }
      #expect(counts == (200, 3896))
    }
  }

  // MARK: - Room

  @Test func anEmptyPoolHasRoomAgainWhenSomethingComesBack() throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    var first = pool.take()
    let second = pool.take(40_000)
    expectSome(first)
    expectSome(second)
    // It is one wait, however often it is asked.
    for _ in 0..<5 {
      expectNone(pool.take())
      expectNone(pool.take(512))
    }
    #expect(pool.statistics.waits == 1 && pool.statistics.inUse == 2 * Self.largest)
    first = nil
    expectSome(pool.take(512))
    first = pool.take()
    expectSome(first)
    expectNone(pool.take(512))
    #expect(pool.statistics.waits == 2 && pool.statistics.highWater == 2 * Self.largest)
  }

  /// As many small buffers as the memory holds; then the largest ones again, whatever came back first.
  @Test(arguments: [512, 1024, 2048, 4096, 8192, 16384, 32768])
  func blocksAreWholeAgainWhenTheirPiecesAreBack(_ size: Int) throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    let count = 32 * 4096 / size
    var random = SystemRandomNumberGenerator()
    for _ in 0..<3 {
      var kept = Buffers()
      while let buffer = pool.take(size) { kept.put(buffer) }
      #expect(kept.count == count)
      let starts = Set(kept.starts)
      #expect(starts.count == count)
      while kept.count > 0 { kept.drop(Int.random(in: 0..<kept.count, using: &random)) }
      #expect(pool.available == 2 && pool.statistics.inUse == 0)
    }
  }

  /// No two buffers ever share a byte, and what is free is always zero.
  @Test func buffersOfAllSizesNeverOverlap() throws {
    let pages = TestPages(count: 128)
    var pool = pool(pages)
    var random = SystemRandomNumberGenerator()
    var kept = Buffers()
    for _ in 0..<20_000 {
      let wanted = 1 << Int.random(in: 0...16, using: &random)
      if Bool.random(using: &random), var buffer = pool.take(wanted) {
        // It is zero, so nobody else has it.
        let isZero = unsafe buffer.bytes.withUnsafeBytes { unsafe $0.allSatisfy { $0 == 0 } }
        guard isZero else {
          Issue.record("a buffer that is not zero")
          return
        }
        buffer.withMutableBytes(buffer.byteCount) { bytes in
          unsafe bytes.withUnsafeMutableBytes { bytes in
            _ = unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0xFF)
          }
        }
        kept.put(buffer)
      } else if kept.count > 0 {
        kept.drop(Int.random(in: 0..<kept.count, using: &random))
      }
    }
    let used = unsafe pages.bytes.count { $0 != 0 }
    #expect(used == pool.statistics.inUse && kept.byteCount == used)
    kept = Buffers()
    let isZero = unsafe pages.bytes.allSatisfy { $0 == 0 }
    #expect(isZero && pool.available == 8)
  }

  // MARK: - The device's

  @Test func aPieceThatTheDeviceKeepsIsNeverGivenAgain() throws {
    let pages = TestPages(count: 32)
    var pool = pool(pages)
    var lost = 0
    do {
      var buffer = try unwrap(pool.take(512))
      lost = unsafe buffer.start - pages.bytes.baseAddress.unsafelyUnwrapped
      buffer.lend(512)
    }
    #expect(pool.statistics.lost == 512 && pool.statistics.inUse == 0)
    // Its block stays cut: the rest of it is of use, and one block is whole.
    #expect(pool.available == 1)
    var kept = Buffers()
    while let buffer = pool.take(512) { kept.put(buffer) }
    #expect(kept.count == 255)
    let base = unsafe UInt(bitPattern: pages.bytes.baseAddress) + UInt(lost)
    #expect(!kept.starts.contains(base))
  }

  @Test func thePoolsMemoryStaysAsLongAsOnePiece() throws {
    let pages = TestPages(count: 16)
    weak let owner = pages.owner
    var kept: DMABuffer<HostVisible>?
    do {
      var pool = DMAPool<HostVisible>(pages.takeHandle(), bufferByteCount: Self.largest)
      kept = pool.take(512)
      let other = pool.take(500)
      expectSome(other)
    }
    #expect(owner != nil)
    expectSome(kept)
    kept = nil
    #expect(owner == nil)
  }

  // MARK: - Encrypted memory

  /// The same calls; nothing is scrubbed, and what is not copied is not counted.
  @Test func encryptedMemoryIsNotScrubbed() throws {
    let pages = TestPages(count: 32)
    var pool = DMAPool<Encrypted>(
      pages.handle(isScrubbed: true), bufferByteCount: Self.largest)
    #expect(!pool.isBounced && pool.isIsolated)
    for _ in 0..<10 {
      var buffer = try unwrap(pool.take(4096))
      buffer.withMutableBytes(16) { $0.storeBytes(of: 0x5A, as: UInt8.self) }
      buffer.lend(4096)
      buffer.takeBack()
    }
    let statistics = pool.statistics
    #expect(statistics.copiedIn == 0 && statistics.copiedOut == 0 && statistics.scrubbed == 0)
    #expect(statistics.highWater == Self.largest)
    let isThere = unsafe pages.bytes.contains(0x5A)
    #expect(isThere)
  }

  @Test func whoSeesWhatIsAskedOfThePool() {
    let pages = TestPages(count: 32)
    let bounced = pool(pages)
    let plain = pool(pages, isScrubbed: false)
    #expect(bounced.isBounced && bounced.isIsolated)
    #expect(!plain.isBounced && !plain.isIsolated)
  }
}

/// Buffers in use.
@safe
private struct Buffers: ~Copyable {
  private let memory: UnsafeMutablePointer<DMABuffer<HostVisible>> = .allocate(capacity: 1024)
  private(set) var count = 0

  deinit {
    unsafe memory.deinitialize(count: count)
    unsafe memory.deallocate()
  }

  mutating func put(_ buffer: consuming DMABuffer<HostVisible>) {
    unsafe (memory + count).initialize(to: buffer)
    count += 1
  }

  mutating func drop(_ index: Int) {
    unsafe (memory + index).deinitialize(count: 1)
    count -= 1
    if index < count { unsafe (memory + index).moveInitialize(from: memory + count, count: 1) }
  }

  var byteCount: Int { (0..<count).reduce(0) { unsafe $0 + memory[$1].byteCount } }
  var starts: [UInt] { (0..<count).map { unsafe UInt(bitPattern: memory[$0].start) } }
}
