// SPDX-License-Identifier: Apache-2.0

public import Synchronization

/// The memory that one ring lies in: a control page and a data area.
///
/// The ring's logic is the same whatever this is: pages mapped from a device file, pages of a
/// guest that the simulated host maps, or plain memory in a test. An implementation promises that
/// both areas stay mapped, readable and writable for as long as the value lives. It promises
/// nothing of their content: the peer writes there when it likes.
public protocol RingMemory: ~Copyable {
  /// The control page; at least 128 bytes, 4-byte aligned.
  var controlPage: UnsafeMutableRawPointer { get }
  /// The first byte of the data area; 8-byte aligned.
  var data: UnsafeMutableRawPointer { get }
  /// Bytes of the data area: a multiple of 4096, at least 4096, less than 2 GiB.
  var dataByteCount: Int { get }
}

/// Ring memory that somebody else keeps mapped.
@safe
public struct BorrowedRingMemory: RingMemory, ~Copyable, @unchecked Sendable {
  public let controlPage: UnsafeMutableRawPointer
  public let data: UnsafeMutableRawPointer
  public let dataByteCount: Int

  /// - Parameters:
  ///   - start: a control page of `pageBytes`, with the data right behind it.
  ///   - byteCount: of both together.
  ///
  /// The caller keeps the memory mapped for as long as this value lives.
  @unsafe
  public init(start: UnsafeMutableRawPointer, byteCount: Int, pageBytes: Int = 4096) {
    unsafe controlPage = start
    unsafe data = start + pageBytes
    dataByteCount = byteCount - pageBytes
  }

  /// Asks for interrupts on behalf of the consumer, whose end this is: for a system that has masked
  /// them itself. The consumer looks at the ring after that.
  public func unmaskInterrupts() {
    unsafe RingControl(page: controlPage).interruptMask.store(0)
  }
}

/// Ring memory on the heap, for tests and benchmarks in which both ends share one address space.
@safe
public final class HeapRingMemory: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let byteCount: Int

  /// - Parameter dataByteCount: a multiple of 4096.
  public init(dataByteCount: Int) {
    byteCount = dataByteCount + 4096
    unsafe start = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  }

  deinit { unsafe start.deallocate() }

  /// One end's view. This object must outlive it.
  @unsafe
  public func end() -> BorrowedRingMemory {
    unsafe BorrowedRingMemory(start: start, byteCount: byteCount)
  }

  /// The control page's words and the data, for a test that plays a hostile peer.
  @unsafe
  public var bytes: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
  }
}

/// The words of a control page. All accesses are atomic; the orderings are those of law 6.
@safe
@frozen
public struct RingControl {
  @usableFromInline let words: UnsafeMutablePointer<Atomic<UInt32>>

  @inlinable
  @unsafe
  init(page: UnsafeMutableRawPointer) {
    unsafe words = page.assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  /// Byte 0: where the producer will write next.
  @inlinable var producerIndex: RingWord { unsafe RingWord(words) }
  /// Byte 4: where the consumer will read next.
  @inlinable var consumerIndex: RingWord { unsafe RingWord(words + 1) }
  /// Byte 8: 1 when the consumer wants no signals.
  @inlinable var interruptMask: RingWord { unsafe RingWord(words + 2) }
  /// Byte 12: bytes that a blocked producer waits for, 0 for none.
  @inlinable var pendingSendSize: RingWord { unsafe RingWord(words + 3) }
  /// Byte 64: bit 0, the producer uses `pendingSendSize`.
  @inlinable var featureBits: RingWord { unsafe RingWord(words + 16) }
}

/// One word of a control page.
@safe
@frozen
public struct RingWord {
  @usableFromInline let word: UnsafeMutablePointer<Atomic<UInt32>>

  @inlinable
  init(_ word: UnsafeMutablePointer<Atomic<UInt32>>) { unsafe self.word = word }

  @inlinable
  func load() -> UInt32 { unsafe word.pointee.load(ordering: .sequentiallyConsistent) }

  /// For a value that takes no part in a handshake.
  @inlinable
  func loadRelaxed() -> UInt32 { unsafe word.pointee.load(ordering: .relaxed) }

  @inlinable
  func store(_ value: UInt32) {
    unsafe word.pointee.store(value, ordering: .sequentiallyConsistent)
  }
}

/// 8 bytes of a data area.
@safe
@frozen
@usableFromInline
struct RingWord64 {
  @usableFromInline let word: UnsafeMutablePointer<Atomic<UInt64>>

  @inlinable
  @unsafe
  init(_ word: UnsafeMutableRawPointer) {
    unsafe self.word = word.assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  @inlinable
  func loadRelaxed() -> UInt64 { unsafe word.pointee.load(ordering: .relaxed) }
}

/// The state of a control page as it is at one moment, for people and tests.
public struct RingSnapshot: Equatable, Sendable {
  public var producerIndex: UInt32
  public var consumerIndex: UInt32
  public var interruptMask: UInt32
  public var pendingSendSize: UInt32
  public var featureBits: UInt32

  init(_ control: RingControl) {
    producerIndex = control.producerIndex.loadRelaxed()
    consumerIndex = control.consumerIndex.loadRelaxed()
    interruptMask = control.interruptMask.loadRelaxed()
    pendingSendSize = control.pendingSendSize.loadRelaxed()
    featureBits = control.featureBits.loadRelaxed()
  }
}
