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
    public static let all: Commands = [.read, .write, .flush, .other]
  }

  public enum Outcome: Equatable, Sendable {
    /// CHECK CONDITION with this sense data.
    case sense(SCSISense)
    /// The request fails before it reaches the device.
    case request(SRBStatus)
    /// The device answers with this status and no sense data.
    case device(SCSIStatus)
  }

  public var outcome: Outcome
  public var commands: Commands
  /// The fault hits commands that touch one of these blocks; nil: any command.
  public var blocks: ClosedRange<UInt64>?
  /// How many commands it hits before it is gone.
  public var count: Int

  public init(
    _ outcome: Outcome, commands: Commands = .all, blocks: ClosedRange<UInt64>? = nil,
    count: Int = .max
  ) {
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

  /// The outcome that the first fault for this command forces on it.
  func strike(_ command: SCSICommand) -> StorageFault.Outcome? {
    guard isArmed.load(ordering: .acquiring) else { return nil }
    return strikeArmed(command)
  }

  @inline(never)
  private func strikeArmed(_ command: SCSICommand) -> StorageFault.Outcome? {
    faults.withLock { faults in
      guard let index = faults.firstIndex(where: { $0.hits(command) }) else { return nil }
      let outcome = faults[index].outcome
      faults[index].count -= 1
      if faults[index].count == 0 { faults.remove(at: index) }
      if faults.isEmpty { isArmed.store(false, ordering: .relaxed) }
      return outcome
    }
  }
}

extension StorageFault {
  fileprivate func hits(_ command: SCSICommand) -> Bool {
    let (kind, extent): (Commands, SCSIExtent?) =
      switch command {
      case .read(let extent): (.read, extent)
      case .write(let extent): (.write, extent)
      case .synchronizeCache(let extent): (.flush, extent)
      default: (.other, nil)
      }
    guard commands.contains(kind) else { return false }
    guard let blocks else { return true }
    guard let extent else { return false }
    // A flush of zero blocks is one of the whole disk from there on.
    if kind == .flush, extent.count == 0 { return extent.address <= blocks.upperBound }
    let (end, overflow) = extent.address.addingReportingOverflow(UInt64(extent.count))
    return extent.address <= blocks.upperBound && (overflow || end > blocks.lowerBound)
  }
}
