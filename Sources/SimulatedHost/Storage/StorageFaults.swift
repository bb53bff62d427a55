// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization

/// Errors that a test or an author asks a disk for.
public struct StorageFault: Equatable, Sendable {
  public struct Commands: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let read = Commands(rawValue: 1)
    public static let write = Commands(rawValue: 2)
    public static let flush = Commands(rawValue: 4)
    public static let other = Commands(rawValue: 8)
    /// UNMAP, and nothing else that gives blocks back.
    public static let unmap = Commands(rawValue: 16)
    public static let all: Commands = [.read, .write, .flush, .other, .unmap]
  }

  public enum Outcome: Equatable, Sendable {
    /// CHECK CONDITION with this sense data.
    case sense(SCSISense)
    /// The request fails before it reaches the device.
    case request(SRBStatus)
    /// The device answers with this status and no sense data.
    case device(SCSIStatus)
    /// The command is executed, and the completion claims so many bytes more than were moved.
    case overstate(UInt32)
    /// The command is not executed, and its answer is held until the guest resets the bus: then it is
    /// BUS_RESET. Until then the guest sees a request that takes for ever.
    case hold
  }

  public var outcome: Outcome
  public var commands: Commands
  /// The fault hits commands that touch one of these blocks; nil: any command.
  public var blocks: ClosedRange<UInt64>?
  /// How many such commands it lets pass first.
  public var after: Int
  /// How many commands it hits before it is gone.
  public var count: Int

  public init(
    _ outcome: Outcome, commands: Commands = .all, blocks: ClosedRange<UInt64>? = nil,
    after: Int = 0, count: Int = .max
  ) {
    self.after = after
    self.outcome = outcome
    self.commands = commands
    self.blocks = blocks
    self.count = count
  }
}

/// The faults of one disk. Any thread may add some while workers use the disk.
public struct StorageFaults: ~Copyable, Sendable {
  // Read for each command, so that a disk without faults never takes the lock.
  private let isArmed = Atomic<Bool>(false)
  private let faults = Lock<[StorageFault]>([])

  init() {}

  public func inject(_ fault: StorageFault) {
    guard fault.count > 0 else { return }
    faults.withLock { $0.append(fault) }
    isArmed.store(true, ordering: .releasing)
  }

  public func clear() {
    isArmed.store(false, ordering: .relaxed)
    faults.withLock { $0.removeAll() }
  }

  /// What the first fault for this command forces on it.
  func strike(_ command: DiskCommand) -> Strike? {
    guard isArmed.load(ordering: .acquiring) else { return nil }
    return strikeArmed(command)
  }

  struct Strike: Equatable {
    let outcome: StorageFault.Outcome
    /// The first block of the command that the fault is about.
    let block: UInt64?
  }

  @inline(never)
  private func strikeArmed(_ command: DiskCommand) -> Strike? {
    faults.withLock { faults in
      var strike: Strike?
      for index in faults.indices where strike == nil && faults[index].hits(command) {
        guard faults[index].after == 0 else {
          faults[index].after -= 1
          continue
        }
        let block = faults[index].blocks.map {
          max($0.lowerBound, command.extent?.address ?? $0.lowerBound)
        }
        strike = Strike(outcome: faults[index].outcome, block: block)
        faults[index].count -= 1
      }
      faults.removeAll { $0.count == 0 }
      if faults.isEmpty { isArmed.store(false, ordering: .relaxed) }
      return strike
    }
  }
}

extension StorageFault {
  fileprivate func hits(_ command: DiskCommand) -> Bool {
    let kind: Commands =
      switch command {
      case .read, .verify: .read
      case .write, .writeAndVerify, .writeSame: .write
      case .synchronizeCache: .flush
      case .unmap: .unmap
      default: .other
      }
    guard commands.contains(kind) else { return false }
    guard let blocks else { return true }
    guard let extent = command.extent else { return false }
    // A flush of zero blocks is one of the whole disk from there on.
    if kind == .flush, extent.count == 0 { return extent.address <= blocks.upperBound }
    let (end, overflow) = extent.address.addingReportingOverflow(UInt64(extent.count))
    return extent.address <= blocks.upperBound && (overflow || end > blocks.lowerBound)
  }
}

extension SCSIOutcome {
  init(_ strike: StorageFaults.Strike) {
    self =
      switch strike.outcome {
      case .sense(let sense): .check(sense, strike.block.map { .information($0) })
      case .request(let status): .failed(status, .good)
      case .device(let status): .failed(.error, status)
      case .overstate(let count): .good(count)
      case .hold: .held
      }
  }
}
