// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import DriverProgram
import StorageVSC
import VSC

/// The arguments that name a disk.
struct DiskOptions: DiskSource {
  @OptionGroup var driver: DriverOptions

  @Option(help: ArgumentHelp("The disk on its controller, 0 to 255.", valueName: "number"))
  var lun: UInt8 = 0

  var isVerbose: Bool { driver.verbose }

  func withDisk<Result: Sendable>(
    _ body: (BlockDevice) async throws -> Result
  ) async throws -> Result {
    try await withDevice(StorageVSC.deviceClass, driver) { device in
      do {
        let disk = try await StorageVSC.open(device, .init(lun: lun))
        return try await body(disk)
      } catch let error as StorageOpenError {
        throw ProgramFailure(.unavailable, "\(error)")
      } catch let error as StorageError {
        throw ProgramFailure(storage: error)
      } catch let error as TransportError {
        throw ProgramFailure(.unavailable, "\(error)")
      }
    }
  }

  func measure(
    _ plan: BenchPlan, _ gate: BenchGate, _ follow: () async throws -> BenchReport
  ) async throws -> BenchReport {
    try await withDevice(StorageVSC.deviceClass, driver) { device in
      do {
        try await BenchDriver(plan: plan, lun: lun, gate: gate).start(device)
      } catch let error as TransportError {
        throw ProgramFailure(.unavailable, "\(error)")
      }
      return try await follow()
    }
  }

  func pluginArguments() -> [String] { driver.pluginArguments + ["lun=\(lun)"] }
}

/// The same for a controller with all of its disks.
func withController<Result: Sendable>(
  _ options: DriverOptions, _ body: (StorageController) async throws -> Result
) async throws -> Result {
  try await withDevice(StorageVSC.deviceClass, options) { device in
    do {
      return try await body(try await StorageVSC.openController(device))
    } catch let error as StorageOpenError {
      throw ProgramFailure(.unavailable, "\(error)")
    } catch let error as StorageError {
      throw ProgramFailure(storage: error)
    } catch let error as TransportError {
      throw ProgramFailure(.unavailable, "\(error)")
    }
  }
}
