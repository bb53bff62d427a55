// SPDX-License-Identifier: Apache-2.0

/// Where a buffer lies in its pool, and whether the device has it: in one word, since buffers are moved
/// from hand to hand with each request.
@usableFromInline
@frozen
struct DMAPlace {
  @usableFromInline var bits: UInt64

  /// - Parameter power: of two, that a piece has bytes; 0 for a whole block.
  @inlinable
  init(granule: UInt32, power: UInt32 = 0) { bits = UInt64(power) &<< 32 | UInt64(granule) }

  /// The first of its 512 bytes each, from the pool's start.
  @inlinable var granule: UInt32 { UInt32(truncatingIfNeeded: bits) }
  @inlinable var power: Int { Int(truncatingIfNeeded: bits &>> 32 & 0x3F) }

  @inlinable var isLent: Bool {
    get { bits &>> 63 != 0 }
    set { bits = newValue ? bits | 1 &<< 63 : bits & ~(1 &<< 63) }
  }
}

/// What a pool and its buffers share. Only the pool's worker touches it.
///
/// All that says what is free lies in private memory: the host could change what lies in the pool.
@safe
@usableFromInline
struct DMAPoolCore: ~Copyable {
  @usableFromInline let start: UnsafeMutableRawPointer
  @usableFromInline let pageNumbers: UnsafePointer<GPN>
  /// What a buffer has shown is zeroed when it comes back.
  @usableFromInline let scrubs: Bool
  @usableFromInline let blockByteCount: UInt32
  /// The first granules of blocks that are free.
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  /// A block that leaves fewer free ones than this is noted.
  @usableFromInline var noteBelow: Int
  @usableFromInline var isOrphaned = false
  @usableFromInline var statistics = DMAStatistics()
  private let count: Int
  /// The fewest free blocks that there were.
  private var fewest: Int
  /// Somebody found no room, and nobody has found any since.
  private var isShort = false

  // Blocks that are cut up.
  private var cutCount = 0
  /// Bytes of their pieces that are in use, or lost.
  private var pieceByteCount = 0
  private let blocks: UnsafeMutablePointer<CutBlock>
  /// For each granule that begins a free piece: that of the next one in the same block.
  private let nextPiece: UnsafeMutablePointer<UInt32>
  /// For each size, from 512 bytes on, a block that has free pieces of it.
  private var open = InlineArray<24, UInt32>(repeating: Self.none)
  /// Keeps the memory.
  private let pages: DMAPages

  private static var none: UInt32 { .max }

  /// A block that is cut into pieces of one size.
  struct CutBlock {
    /// 0 for 512 bytes, 1 for 1024...
    var size = 0
    var used: UInt32 = 0
    /// Pieces that were never taken follow this one.
    var fresh: UInt32 = 0
    var freePiece: UInt32 = .max
    // Neighbours among the open blocks of the size.
    var next: UInt32 = .max
    var previous: UInt32 = .max
  }

  init(_ pages: DMAPages, blockByteCount: Int, scrubs: Bool) {
    self.pages = pages
    self.scrubs = scrubs
    self.blockByteCount = UInt32(clamping: blockByteCount)
    unsafe start = pages.start
    unsafe pageNumbers = pages.pageNumbers
    count = pages.byteCount / blockByteCount
    unsafe free = .allocate(capacity: max(count, 1))
    unsafe blocks = .allocate(capacity: max(count, 1))
    for index in 0..<count {
      unsafe (free + index).initialize(to: UInt32((count - 1 - index) * (blockByteCount >> 9)))
      unsafe (blocks + index).initialize(to: CutBlock())
    }
    (freeCount, noteBelow, fewest) = (count, count, count)
    unsafe nextPiece = .allocate(capacity: max(pages.byteCount >> 9, 1))
    statistics.byteCount = count * blockByteCount
  }

  deinit {
    unsafe free.deallocate()
    unsafe blocks.deallocate()
    unsafe nextPiece.deallocate()
  }

  var currentStatistics: DMAStatistics {
    var current = statistics
    let block = Int(blockByteCount)
    current.inUse = (count - freeCount - cutCount) * block + pieceByteCount - current.lost
    current.highWater = (count - fewest) * block
    return current
  }

  // MARK: - Whole blocks

  @inlinable
  mutating func popBlock() -> DMAPlace? {
    guard freeCount > 0 else {
      noteShortage()
      return nil
    }
    freeCount &-= 1
    if freeCount < noteBelow { noteUse() }
    return unsafe DMAPlace(granule: free[freeCount])
  }

  /// There are fewer free blocks than ever, or there is room after a shortage.
  @usableFromInline
  mutating func noteUse() {
    fewest = min(fewest, freeCount)
    noteBelow = fewest
    isShort = false
  }

  @usableFromInline
  mutating func noteShortage() {
    if !isShort { statistics.waits &+= 1 }
    isShort = true
    noteBelow = .max
  }

  /// A buffer that nobody uses any more. What it showed is zeroed.
  @inlinable
  mutating func push(_ place: DMAPlace) {
    guard place.power == 0 else { return pushPiece(place) }
    unsafe free[freeCount] = place.granule
    freeCount &+= 1
  }

  /// A buffer that was dropped while the device had it: it never comes back.
  @usableFromInline
  mutating func lose(_ place: DMAPlace) {
    statistics.lost &+= byteCount(place)
  }

  @inlinable
  func byteCount(_ place: DMAPlace) -> Int {
    place.power == 0 ? Int(blockByteCount) : 1 &<< place.power
  }

  // MARK: - Pieces

  @usableFromInline
  mutating func pop(_ byteCount: Int) -> DMAPlace? {
    let wanted = max(byteCount, 1)
    guard wanted <= Int(blockByteCount) else { return nil }
    // 0 for 512 bytes, and so on.
    let size = max(Int.bitWidth - (wanted &- 1).leadingZeroBitCount, 9) &- 9
    // A block that would not give two pieces is not cut.
    guard 1024 << size <= Int(blockByteCount) else { return popBlock() }
    if open[size] == Self.none {
      guard freeCount > 0 else {
        noteShortage()
        return nil
      }
      freeCount &-= 1
      let block = unsafe free[freeCount] / (blockByteCount >> 9)
      unsafe blocks[Int(block)] = CutBlock(size: size)
      cutCount &+= 1
      link(block)
    }
    noteUse()
    pieceByteCount &+= 512 << size
    return takePiece(of: open[size])
  }

  /// A piece of an open block.
  private mutating func takePiece(of block: UInt32) -> DMAPlace {
    let cut = unsafe blocks + Int(block)
    let size = UInt32(unsafe cut.pointee.size)
    var granule = unsafe cut.pointee.freePiece
    if granule != Self.none {
      unsafe cut.pointee.freePiece = nextPiece[Int(granule)]
    } else {
      granule = unsafe block &* (blockByteCount >> 9) &+ cut.pointee.fresh << size
      unsafe cut.pointee.fresh &+= 1
    }
    unsafe cut.pointee.used &+= 1
    if unsafe cut.pointee.freePiece == Self.none && cut.pointee.fresh == pieceCount(size) {
      unlink(block)
    }
    return DMAPlace(granule: granule, power: size &+ 9)
  }

  private func pieceCount(_ size: UInt32) -> UInt32 { blockByteCount >> (9 &+ size) }

  @usableFromInline
  mutating func pushPiece(_ place: DMAPlace) {
    let block = place.granule / (blockByteCount >> 9)
    let cut = unsafe blocks + Int(block)
    let size = UInt32(unsafe cut.pointee.size)
    pieceByteCount &-= byteCount(place)
    let wasFull =
      unsafe cut.pointee.freePiece == Self.none && cut.pointee.fresh == pieceCount(size)
    unsafe nextPiece[Int(place.granule)] = cut.pointee.freePiece
    unsafe cut.pointee.freePiece = place.granule
    unsafe cut.pointee.used &-= 1
    if unsafe cut.pointee.used == 0 {
      if !wasFull { unlink(block) }
      unsafe free[freeCount] = block &* (blockByteCount >> 9)
      freeCount &+= 1
      cutCount &-= 1
    } else if wasFull {
      link(block)
    }
  }

  private mutating func link(_ block: UInt32) {
    let size = unsafe blocks[Int(block)].size
    let next = open[size]
    unsafe blocks[Int(block)].next = next
    unsafe blocks[Int(block)].previous = Self.none
    if next != Self.none { unsafe blocks[Int(next)].previous = block }
    open[size] = block
  }

  private mutating func unlink(_ block: UInt32) {
    let cut = unsafe blocks[Int(block)]
    if cut.previous == Self.none {
      open[cut.size] = cut.next
    } else {
      unsafe blocks[Int(cut.previous)].next = cut.next
    }
    if cut.next != Self.none { unsafe blocks[Int(cut.next)].previous = cut.previous }
  }

  // MARK: - The end

  @usableFromInline
  static func releaseIfUnused(_ core: UnsafeMutablePointer<DMAPoolCore>) {
    guard unsafe core.pointee.isOrphaned && core.pointee.currentStatistics.inUse == 0 else {
      return
    }
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }
}
