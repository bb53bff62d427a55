// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import VMBus

/// A guest's monitor page as the host looks at it: the guest sets a channel's bit there instead of
/// making a hypercall, and the host finds it a little later.
@safe
final class GuestMonitor: @unchecked Sendable {
  // All of it belongs to the control thread.
  private let memory: GuestMemory
  /// The page that the guest triggers in, as it is mapped here.
  private var page: UnsafeMutableRawPointer?
  /// That page's number.
  private(set) var gpn: GPN?
  /// What stands for the signal of each open channel that has a monitor.
  private var doorbells: [MonitorID: EventBox] = [:]
  /// Those of channels whose rings are looked at without a signal.
  private var polled: [ObjectIdentifier: EventBox] = [:]
  fileprivate private(set) var isOver = false

  /// How long a trigger waits at most, in nanoseconds.
  static let period: UInt64 = 1_000_000

  init(_ memory: GuestMemory) { self.memory = memory }

  /// The guest has named its pages, or has none any more.
  ///
  /// - Throws: `notVisible` for a page that it may not name; then there is none.
  func setPages(_ pages: MonitorPages?, in view: GuestMemoryView) throws(GuestMemoryError) {
    unsafe page = nil
    gpn = nil
    guard let pages else { return }
    let number = pages.childToParent / 4096
    // Safe: it stays mapped as long as `memory` lives.
    unsafe page = try memory.page(number, in: view).start
    gpn = number
  }

  func watch(_ monitor: MonitorID?, _ doorbell: EventBox) {
    if let monitor { doorbells[monitor] = doorbell }
  }

  func unwatch(_ monitor: MonitorID?) {
    if let monitor { doorbells[monitor] = nil }
  }

  /// Signals the channel every so often, for a guest that does not.
  func poll(_ doorbell: EventBox) { polled[ObjectIdentifier(doorbell)] = doorbell }

  func endPolling(_ doorbell: EventBox) { polled[ObjectIdentifier(doorbell)] = nil }

  /// The guest is gone.
  func end() { isOver = true }

  fileprivate var isWatching: Bool {
    unsafe page != nil && !doorbells.isEmpty || !polled.isEmpty
  }

  /// Takes the bits that are set, and signals their channels. Those of channels that are not open
  /// mean nothing.
  func look() {
    for doorbell in polled.values { doorbell.event.signalWithoutBlocking() }
    guard let page = unsafe page else { return }
    for group in 0..<MonitorPage.groupCount {
      guard let first = MonitorID(UInt8(group * 32)) else { continue }
      // Safe: a page of the guest, and the word lies within it. Atomic, since the guest sets bits
      // meanwhile.
      let word = unsafe (page + MonitorPage.pendingOffset(first))
        .assumingMemoryBound(to: Atomic<UInt32>.self)
      guard unsafe word.pointee.load(ordering: .relaxed) != 0 else { continue }
      var bits = unsafe word.pointee.exchange(0, ordering: .sequentiallyConsistent)
      while bits != 0 {
        let monitor = MonitorID(UInt8(group * 32 + bits.trailingZeroBitCount))
        bits &= bits &- 1
        if let monitor { doorbells[monitor]?.event.signalWithoutBlocking() }
      }
    }
  }
}

/// Lets the control thread look every so often, while there is something to look for.
struct MonitorPoller: Pollable, ~Copyable {
  let monitor: GuestMonitor
  private var last: UInt64 = 0

  init(_ monitor: GuestMonitor) { self.monitor = monitor }

  mutating func poll(budget: Int) -> Int? { monitor.isOver ? nil : 0 }
  mutating func arm() -> Bool { false }
  mutating func disarm() {}

  var nextDeadline: UInt64 { monitor.isWatching ? last &+ GuestMonitor.period : .max }

  mutating func expire(now: UInt64) {
    last = now
    monitor.look()
  }
}
