// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import StorageVSC
import VSC

/// The arguments that name a disk.
struct DiskOptions: ParsableArguments {
  @OptionGroup var driver: DriverOptions

  @Option(help: ArgumentHelp("The disk on its controller, 0 to 255.", valueName: "number"))
  var lun: UInt8 = 0
}

/// Opens the disk that the options name, calls `body`, and closes all of it.
func withDisk<Result: Sendable>(
  _ options: DiskOptions, _ body: (BlockDevice) async throws -> Result
) async throws -> Result {
  try await withDevice(StorageVSC.deviceClass, options.driver) { device in
    do {
      let disk = try await StorageVSC.open(device, .init(lun: options.lun))
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

extension ProgramFailure {
  init(storage error: StorageError) {
    switch error {
    case .outOfRange, .badLength, .unsupported: self.init(.usage, "\(error)")
    case .readOnly: self.init(.permission, "\(error)")
    case .channel, .noDisk, .notADisk, .refused, .removed, .unresponsive, .unusableGeometry:
      self.init(.unavailable, "\(error)")
    default: self.init(.io, "\(error)")
    }
  }
}
