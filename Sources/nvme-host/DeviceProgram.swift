// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Platform
import ProgramSupport
import SimulatedHost
import SimulatedNVMe
import SystemPackage

/// A simulated NVMe device as a process.
struct DeviceProgram: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nvme-host",
    abstract:
      "A simulated NVMe device: serves disks as a PCI function to a driver on this machine.",
    discussion: """
      Drivers (vsc-nvme --host PATH) join over the socket, one after the other. The device reaches their \
      memory only where they give it. It runs until SIGINT or SIGTERM.
      """,
    version: projectVersion)

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"))
  var socket: String

  @Option(
    help: ArgumentHelp(
      "A raw image to serve, sparse or not, or memory:SIZE, with K, M, G or T. Can be given several times: each is a namespace, from 1 on.",
      valueName: "file"))
  var disk: [String]

  @Flag(help: "Refuse writes.")
  var readOnly = false

  @Option(help: ArgumentHelp("Bytes of a block, 512 or 4096.", valueName: "bytes"))
  var blockSize: Int = 512

  @Option(help: ArgumentHelp("Queue pairs that a driver may have.", valueName: "count"))
  var queues: Int = 16

  @Option(help: ArgumentHelp("The processor of the device's thread.", valueName: "number"))
  var cpu: Int?

  @Option(
    help: ArgumentHelp(
      "Rounds without work before that thread takes naps of 50 µs.", valueName: "rounds"))
  var spin: Int = 2000

  @Option(
    help: ArgumentHelp(
      "A fault of I/O commands: \(NVMeFault.syntax). Can be given several times.",
      valueName: "fault"))
  var fault: [NVMeFault] = []

  @Option(
    help: ArgumentHelp(
      "Do at random what no controller may do; the same for the same number.", valueName: "seed"))
  var hostile: UInt64?

  func validate() throws {
    guard blockSize == 512 || blockSize == 4096 else {
      throw ValidationError("--block-size must be 512 or 4096.")
    }
    guard 1...1024 ~= disk.count else {
      throw ValidationError("--disk is needed, 1024 times at most.")
    }
    guard 1...64 ~= queues else { throw ValidationError("--queues must be 1 to 64.") }
    guard spin >= 0 else { throw ValidationError("--spin must be 0 or more.") }
  }

  func run() throws {
    try Termination.handle()
    var settings = NVMeSettings()
    settings.queueCount = queues
    settings.vectorCount = queues
    settings.faults = fault
    settings.hostileSeed = hostile
    let device: SimulatedNVMe
    do {
      device = try SimulatedNVMe(
        path: socket, settings, cpu: cpu, spinRounds: spin,
        try disk.map { SimulatedNVMe.Namespace(try image($0), blockByteCount: blockSize) })
    } catch let error as DiskImageError {
      throw ProgramFailure(.noInput, "\(error)")
    } catch Errno.addressInUse {
      throw ProgramFailure(.unavailable, "\(socket): another device listens there, or it is a file")
    } catch Errno.invalidArgument {
      throw ProgramFailure(.usage, "--cpu: this process may not use that processor")
    } catch let error as Errno {
      throw ProgramFailure(.cannotCreate, "\(socket): \(error)")
    }
    _ = Termination.wait()
    device.stop()
  }

  private func image(_ disk: String) throws -> DiskImage {
    let image: DiskImage
    if disk.hasPrefix("memory:") {
      guard let size = ByteCount(argument: String(disk.dropFirst(7))), size.bytes > 0 else {
        throw ProgramFailure(.usage, "\(disk): a size is meant, such as memory:64M")
      }
      image = try DiskImage.inMemory(byteCount: size.bytes, readOnly: readOnly)
    } else {
      image = try DiskImage.open(path: disk, readOnly: readOnly)
    }
    guard image.byteCount >= UInt64(blockSize), image.byteCount % UInt64(blockSize) == 0 else {
      throw ProgramFailure(
        .noInput, "\(disk): is no multiple of the block size, \(blockSize) bytes")
    }
    return image
  }
}

extension NVMeFault: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
