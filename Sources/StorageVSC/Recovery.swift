// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol

/// What is done about requests that the host does not answer, as a value without I/O: the unit is
/// reset, then the bus, then the channel is given up.
///
/// A reset that is answered is meant to end what was under way. Requests that come back by that
/// need no more; for those that don't, the bus is reset too. If that is answered as well, the host
/// lives and has lost a completion: the memory of that request stays lent, and the disk goes on.
struct Recovery {
  enum Action: Equatable {
    case none
    /// Send; the outcome goes to `answered`.
    case reset(StorageOperation, lun: UInt8)
    case giveUp
  }

  private enum Stage: Equatable {
    case idle, resettingUnit, resettingBus
    /// The unit was reset; its requests may come back until then.
    case waiting(until: UInt64)
  }

  private var stage = Stage.idle
  /// Units with late requests that nothing has been done about.
  private var late: [UInt8] = []
  /// Nanoseconds for the requests of a unit that was reset.
  private let grace: UInt64
  /// Requests that the host has lost: not even a reset of the bus has brought them back.
  private var lost = 0

  init(grace: UInt64) { self.grace = grace }

  var isIdle: Bool { stage == .idle }

  /// When `expire` is to be called.
  var deadline: UInt64 {
    if case .waiting(let until) = stage { return until }
    return .max
  }

  /// A request to a unit is late.
  mutating func timedOut(_ lun: UInt8) -> Action {
    if !late.contains(lun) { late.append(lun) }
    return stage == .idle ? begin() : .none
  }

  private mutating func begin() -> Action {
    guard let lun = late.first else { return .none }
    late.removeFirst()
    stage = .resettingUnit
    return .reset(.resetLUN, lun: lun)
  }

  /// A reset ended, or could not be sent.
  ///
  /// - Parameter missing: requests that timed out and are still with the host.
  mutating func answered(_ succeeded: Bool, now: UInt64, missing: Int = 0) -> Action {
    switch stage {
    case .resettingUnit:
      guard succeeded else { return resetBus() }
      stage = .waiting(until: now &+ grace)
      return .none
    case .resettingBus:
      guard succeeded else { return .giveUp }
      late = []
      lost = missing
      stage = .idle
      return .none
    case .idle, .waiting: return .none
    }
  }

  /// - Parameter missing: requests that timed out and are still with the host.
  mutating func expire(now: UInt64, missing: Int) -> Action {
    guard case .waiting(let until) = stage, now >= until else { return .none }
    if missing > lost { return resetBus() }
    lost = missing
    stage = .idle
    return begin()
  }

  private mutating func resetBus() -> Action {
    stage = .resettingBus
    return .reset(.resetBus, lun: 0)
  }
}
