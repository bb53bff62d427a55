// SPDX-License-Identifier: Apache-2.0

public import PCIFunction
public import Platform
import ProgramSupport
import SimulatedBus
import SimulatedPCI
import SystemPackage
import VFIOPCI
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
  guard let path = options.host else { return try findOfMachine(options) }
  var configuration = SimulatedFunction.Configuration()
  configuration.isIsolated = options.machine != .plain
  configuration.memoryByteCount = options.memory << 20
  do throws(PCIError) {
    return try SimulatedFunction(path: path, configuration)
  } catch {
    throw ProgramFailure(.unavailable, "\(error)")
  }
}

/// A function of this machine, by its address.
private func findOfMachine(_ options: DriverOptions) throws -> any PCIFunction {
  guard let name = options.device else {
    throw ProgramFailure(
      .usage,
      "say where the device is: --device 0000:01:00.0, or --host PATH of a simulated device")
  }
  guard let address = PCIAddress(name) else {
    throw ProgramFailure(.usage, "'\(name)' is no address of a PCI function, as 0000:01:00.0 is")
  }
  var configuration = VFIOBus.Configuration()
  configuration.way = options.vfio
  let bus = VFIOBus(configuration)
  let functions: [any PCIFunction]
  do throws(PCIError) {
    functions = try bus.functions
  } catch {
    throw ProgramFailure(.unavailable, "\(error)")
  }
  guard let found = functions.first(where: { $0.identity.address == address }) else {
    throw ProgramFailure(.unavailable, "\(bus.name) has no function \(address)")
  }
  if let obstacle = found.obstacle {
    throw ProgramFailure(.unavailable, "\(address): \(obstacle)")
  }
  return found
}
