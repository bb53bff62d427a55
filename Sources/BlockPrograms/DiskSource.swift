// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
public import BlockStorage
public import ProgramSupport

/// The arguments that name a disk, and how a program opens it: what the commands of all disks share.
public protocol DiskSource: ParsableArguments, Sendable {
  /// Opens the disk, calls `body`, and closes all of it.
  func withDisk<Result: Sendable>(
    _ body: (BlockDevice) async throws -> Result
  ) async throws -> Result

  /// Drives the disk on the burst face, as the plan says, while `follow` waits for what the gate tells.
  func measure(
    _ plan: BenchPlan, _ gate: BenchGate, _ follow: () async throws -> BenchReport
  ) async throws -> BenchReport

  /// What the nbdkit plugin is told, so that it opens the same disk.
  ///
  /// - Throws: `ProgramFailure` when the disk can't be exported.
  func pluginArguments() throws -> [String]

  var isVerbose: Bool { get }
}

extension ProgramFailure {
  public init(storage error: StorageError) {
    switch error {
    case .outOfRange, .badLength, .unsupported: self.init(.usage, "\(error)")
    case .readOnly: self.init(.permission, "\(error)")
    case .channel, .noDisk, .notADisk, .refused, .removed, .unresponsive, .unusableGeometry,
      .noNamespace, .unusableController:
      self.init(.unavailable, "\(error)")
    default: self.init(.io, "\(error)")
    }
  }
}
