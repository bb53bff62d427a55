// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMe
import NVMeProtocol
import PCIFunction
import Platform
import SimulatedHost
import SimulatedNVMe
import SimulatedPCI
import VSC

/// A simulated device with its own thread, and a driver that reaches it over the socket.
struct NVMeBed {
  let device: SimulatedNVMe
  let function: SimulatedFunction
  let workers: [Worker]
  let controller: NVMeController

  static func path() -> String { "/tmp/nvme-\(UInt64.random(in: 0..<(.max))).sock" }

  static func device(
    _ settings: NVMeSettings = NVMeSettings(), byteCount: UInt64 = 16 << 20,
    blockByteCount: Int = 512, namespaces: Int = 1
  ) throws -> SimulatedNVMe {
    try SimulatedNVMe(
      path: path(), settings, spinRounds: 200,
      (0..<namespaces).map { index in
        SimulatedNVMe.Namespace(
          try DiskImage.inMemory(byteCount: byteCount << UInt64(index)),
          blockByteCount: blockByteCount)
      })
  }

  static func workers(_ count: Int) throws -> [Worker] {
    try (0..<count).map { try Worker(.init(name: "nvme-\($0)", spinRounds: 200)) }
  }

  init(
    _ settings: NVMeSettings = NVMeSettings(), byteCount: UInt64 = 16 << 20,
    blockByteCount: Int = 512, namespaces: Int = 1, workers count: Int = 1,
    isIsolated: Bool = false,
    _ configuration: NVMeController.Configuration = .init(depth: 16)
  ) async throws {
    device = try Self.device(
      settings, byteCount: byteCount, blockByteCount: blockByteCount, namespaces: namespaces)
    function = try SimulatedFunction(path: device.path, .init(isIsolated: isIsolated))
    workers = try Self.workers(count)
    do {
      controller = try await NVMeController.open(function, workers: workers, configuration)
    } catch {
      for worker in workers { worker.stop() }
      device.stop()
      throw error
    }
  }

  func close() async {
    await controller.close()
    for worker in workers { worker.stop() }
    device.stop()
  }

  static func pattern(_ count: Int, seed: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ seed) }
  }

  /// Short times, for tests of controllers that do not answer.
  static var impatient: NVMeController.Configuration {
    NVMeController.Configuration(
      depth: 16, timeout: 100_000_000, adminTimeout: 200_000_000, startupLimit: 2_000_000_000)
  }
}

extension NVMeBed {
  /// The same device's function, joined once more.
  func again() throws -> SimulatedFunction { try SimulatedFunction(path: device.path) }
}
