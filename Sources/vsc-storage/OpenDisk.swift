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

/// A number of bytes as people write it: 4096, 4K, 1M.
struct ByteCount: ExpressibleByArgument, Sendable {
  let bytes: UInt64

  init(bytes: UInt64) { self.bytes = bytes }

  init?(argument: String) {
    let units: [Character: UInt64] = [
      "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50,
    ]
    let unit = argument.last.flatMap { units[Character($0.lowercased())] }
    guard let number = UInt64(unit == nil ? argument : String(argument.dropLast())) else {
      return nil
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
    guard !overflow, bytes <= UInt64(Int64.max) else { return nil }
    self.bytes = bytes
  }

  var defaultValueDescription: String { "\(bytes)" }
}

/// Bytes for people: 1.5 MiB.
func humanBytes(_ bytes: Double) -> String {
  var (value, unit) = (bytes, 0)
  let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  while value >= 1024, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  return
    "\(decimal(value, value < 10 && unit > 0 ? 2 : value < 100 && unit > 0 ? 1 : 0)) \(units[unit])"
}

/// A number with so many digits behind the point.
func decimal(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "-" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = Int64((abs(value) * scale).rounded())
  let sign = value < 0 && scaled > 0 ? "-" : ""
  guard digits > 0 else { return "\(sign)\(scaled)" }
  let fraction = String(scaled % Int64(scale))
  let zeros = String(repeating: "0", count: digits - fraction.count)
  return "\(sign)\(scaled / Int64(scale)).\(zeros)\(fraction)"
}
