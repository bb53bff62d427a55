// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import BlockStorage
import DriverProgram
import NVMe
import PCIFunction
import Synchronization
import VSC

/// The arguments that name a namespace.
struct NamespaceOptions: DiskSource {
  @OptionGroup var driver: DriverOptions

  @Option(help: ArgumentHelp("The namespace of the controller, from 1 on.", valueName: "number"))
  var namespace: UInt32 = 1

  var isVerbose: Bool { driver.verbose }

  func withDisk<Result: Sendable>(
    _ body: (BlockDevice) async throws -> Result
  ) async throws -> Result {
    try await withController(driver) { controller, _ in
      try await body(try await controller.disk(namespace))
    }
  }

  func measure(
    _ plan: BenchPlan, _ gate: BenchGate, _ follow: () async throws -> BenchReport
  ) async throws -> BenchReport {
    var configuration = NVMeController.Configuration(depth: plan.depth)
    configuration.bufferByteCount = max(plan.byteCount, 4096)
    let report = try await withController(driver, configuration) { controller, workers in
      let count = min(workers.count, controller.grantedQueues)
      for index in 0..<count {
        let queue = try await controller.makeQueue(index, namespace: namespace, depth: plan.depth)
        let pool: DMAPool<HostVisible> = try controller.makePool(
          count: plan.depth + 1, byteCount: plan.byteCount)
        let isBounced = pool.isBounced
        controller.attach(
          BenchLoop(queue, pool, isBounced: isBounced, plan, gate, index: index), to: index
        ) {
          gate.finish(index, .failure(.storage(controller.ended ?? .channel(.ended(.closed)))))
        }
      }
      gate.open(count)
      for worker in workers { worker.post {} }
      return try await follow()
    }
    return report
  }

  func pluginArguments() throws -> [String] {
    guard driver.host != nil || driver.device != nil else {
      throw ProgramFailure(
        .usage,
        "say where the device is: --device 0000:01:00.0, or --host PATH of a simulated device")
    }
    return driver.pluginArguments + ["namespace=\(namespace)"]
  }
}
