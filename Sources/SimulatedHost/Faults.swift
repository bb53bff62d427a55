// SPDX-License-Identifier: Apache-2.0

import CLinux
import VMBus

/// What a test, or an author, wants to go wrong with the completions of a device.
public enum ChannelFault: Sendable, Equatable {
  case none
  /// The completion never comes.
  case drop
  /// It comes twice.
  case twice
  /// One with an id that nobody gave out comes before it.
  case invent
  /// It comes later by so many nanoseconds.
  case delay(UInt64)
  /// It is followed by bytes that nobody asked for.
  case long
  /// It ends in the middle of its header.
  case short
  /// The device does nothing for so many nanoseconds after it.
  case stall(UInt64)
  /// The ring is overwritten with nonsense instead.
  case garbage
  /// The host takes the device back.
  case rescind
  /// The host's process ends at once, as by `kill -9`.
  case crash
}

/// Which completions of a channel a fault happens to.
public struct FaultPlan: Sendable, Equatable {
  public var fault: ChannelFault
  /// Completions before the first fault.
  public var after: Int
  /// How many times it happens.
  public var count: Int

  public init(_ fault: ChannelFault, after: Int = 0, count: Int = 1) {
    self.fault = fault
    self.after = after
    self.count = count
  }

  /// Reads `FAULT[:after=N][:count=N][:ms=N]`, where FAULT is drop, twice, invent, delay, long,
  /// short, stall, garbage, rescind or crash. Returns nil for other text.
  public init?(_ text: String) {
    let parts = text.split(separator: ":")
    guard let name = parts.first else { return nil }
    var numbers: [Substring: Int] = ["after": 0, "count": 1, "ms": 100]
    for part in parts.dropFirst() {
      let pair = part.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2, numbers[pair[0]] != nil, let value = Int(pair[1]), value >= 0,
        value <= 1_000_000_000
      else { return nil }
      numbers[pair[0]] = value
    }
    let milliseconds = UInt64(numbers["ms"] ?? 100)
    let known: [Substring: ChannelFault] = [
      "drop": .drop, "twice": .twice, "invent": .invent, "garbage": .garbage, "crash": .crash,
      "rescind": .rescind,
      "delay": .delay(milliseconds * 1_000_000), "long": .long, "short": .short,
      "stall": .stall(milliseconds * 1_000_000),
    ]
    guard let fault = known[name] else { return nil }
    self.init(fault, after: numbers["after"] ?? 0, count: numbers["count"] ?? 1)
  }
}

/// The faults of one channel, and the completions that they hold back.
struct ChannelFaults {
  private var plans: [FaultPlan]
  private let isEmpty: Bool
  private var held: [(due: UInt64, payload: [UInt8], transactionID: UInt64)] = []

  init(_ plans: [FaultPlan]) {
    self.plans = plans
    isEmpty = plans.isEmpty
  }

  /// What happens to the next completion: the first plan whose turn it is.
  mutating func next() -> ChannelFault {
    if isEmpty { return .none }
    var fault = ChannelFault.none
    for index in plans.indices {
      if plans[index].after > 0 {
        plans[index].after -= 1
      } else if plans[index].count > 0, fault == .none {
        plans[index].count -= 1
        fault = plans[index].fault
      }
    }
    return fault
  }

  mutating func hold(_ payload: RawSpan, _ transactionID: UInt64, until due: UInt64) {
    held.append((due, unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }, transactionID))
  }

  var nextDeadline: UInt64 { held.isEmpty ? .max : held.map(\.due).min() ?? .max }

  mutating func due(now: UInt64) -> (payload: [UInt8], transactionID: UInt64)? {
    guard !held.isEmpty, let index = held.firstIndex(where: { $0.due <= now }) else { return nil }
    let entry = held.remove(at: index)
    return (entry.payload, entry.transactionID)
  }
}

/// Ends the process as `kill -9` would: nothing is flushed, nothing is said.
func crashProcess() -> Never { vmbus_crash() }
