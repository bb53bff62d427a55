// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Synchronization

/// A thread that does a thing over and over, without pause, while others go on: a host that rewrites
/// memory behind the guest's back.
public final class Racer: Sendable {
  private let isOver = Atomic<Bool>(false)
  private let rounds = Atomic<UInt64>(0)
  private let end = DispatchSemaphore(value: 0)

  /// - Parameter stroke: is called on a thread of its own until `stop`.
  public init(seed: UInt64, _ stroke: @escaping @Sendable (inout Numbers) -> Void) {
    Thread { [self] in
      var random = Numbers(seed: seed)
      while !isOver.load(ordering: .relaxed) {
        stroke(&random)
        rounds.add(1, ordering: .relaxed)
      }
      end.signal()
    }.start()
    // Nobody begins before it does.
    wait(1)
  }

  /// How often it was done.
  public var strokes: UInt64 { rounds.load(ordering: .relaxed) }

  /// Returns when it was done so many times more: where processors are few, that takes its turn.
  public func wait(_ count: UInt64) {
    let end = strokes &+ count
    while strokes < end { _ = sched_yield() }
  }

  /// Returns when the thread is done.
  public func stop() {
    isOver.store(true, ordering: .relaxed)
    end.wait()
  }
}

/// Memory of both ends, as the one who races writes to it: whole words.
@safe
public struct RacedMemory: @unchecked Sendable {
  // Everybody writes to it.
  private let start: UnsafeMutableRawPointer
  public let byteCount: Int

  /// The caller keeps the memory mapped, at least 8 bytes of it.
  @unsafe
  public init(start: UnsafeMutableRawPointer, byteCount: Int) {
    unsafe self.start = start
    self.byteCount = byteCount
  }

  private func word(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
    let place = ((offset % byteCount + byteCount) % byteCount) & ~7
    return unsafe (start + place).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  private func half(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
    let place = ((offset % byteCount + byteCount) % byteCount) & ~3
    return unsafe (start + place).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  /// Offsets wrap round.
  public func store(_ value: UInt64, at offset: Int) {
    unsafe word(offset).pointee.store(value, ordering: .relaxed)
  }

  public func store32(_ value: UInt32, at offset: Int) {
    unsafe half(offset).pointee.store(value, ordering: .relaxed)
  }

  public func load32(at offset: Int) -> UInt32 {
    unsafe half(offset).pointee.load(ordering: .relaxed)
  }

  /// Another value for some time, then what was there.
  public func flicker(_ value: UInt64, at offset: Int, pause: Int = 0) {
    let place = unsafe word(offset)
    let before = unsafe place.pointee.exchange(value, ordering: .relaxed)
    for _ in 0..<pause { _ = unsafe place.pointee.load(ordering: .relaxed) }
    unsafe place.pointee.store(before, ordering: .relaxed)
  }

  public func flicker32(_ value: UInt32, at offset: Int, pause: Int = 0) {
    let place = unsafe half(offset)
    let before = unsafe place.pointee.exchange(value, ordering: .relaxed)
    for _ in 0..<pause { _ = unsafe place.pointee.load(ordering: .relaxed) }
    unsafe place.pointee.store(before, ordering: .relaxed)
  }
}
