// SPDX-License-Identifier: Apache-2.0

import BlockPrograms
import BlockStorage
import DriverProgram
import NVMe
import PCIFunction
import VSC

/// Runs `body` with the controller that the options name, and its workers; closed at the end.
func withController<Result: Sendable>(
  _ driver: DriverOptions, _ configuration: NVMeController.Configuration = .init(),
  _ body: (NVMeController, [Worker]) async throws -> Result
) async throws -> Result {
  let found = try await openFunction(driver)
  do {
    let controller = try await NVMeController.open(
      found.function, workers: found.workers, configuration)
    do {
      let result = try await body(controller, found.workers)
      await controller.close()
      await found.close()
      return result
    } catch {
      await controller.close()
      throw error
    }
  } catch {
    await found.close()
    switch error {
    case let error as NVMeOpenError: throw ProgramFailure(.unavailable, "\(error)")
    case let error as StorageError: throw ProgramFailure(storage: error)
    case let error as PCIError: throw ProgramFailure(.unavailable, "\(error)")
    default: throw error
    }
  }
}
