// SPDX-License-Identifier: Apache-2.0

public import PCIFunction
public import Platform
import ProgramSupport
import SimulatedBus
import SimulatedPCI
import SystemPackage
import VSC

/// A PCI function with its workers.
public struct FoundFunction: Sendable {
  public let function: any PCIFunction
  public let workers: [Worker]

  /// Ends the workers, and gives the function back. Its driver has been closed.
  public func close() async {
    for worker in workers { worker.stop() }
    await function.close()
  }
}

/// Finds the PCI function that the options name, and starts its workers.
public func openFunction(_ options: DriverOptions) async throws -> FoundFunction {
  let function = try findFunction(options)
  do {
    return FoundFunction(function: function, workers: try startWorkers(options))
  } catch {
    await function.close()
    throw error
  }
}

private func findFunction(_ options: DriverOptions) throws -> any PCIFunction {
  guard let path = options.host else {
    throw ProgramFailure(.usage, "say where the device is: --host PATH of a simulated device")
  }
  var configuration = SimulatedFunction.Configuration()
  configuration.isIsolated = options.machine != .plain
  configuration.memoryByteCount = options.memory << 20
  do throws(PCIError) {
    return try SimulatedFunction(path: path, configuration)
  } catch {
    throw ProgramFailure(.unavailable, "\(error)")
  }
}
