// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Dispatch
import DriverProgram
import Glibc
import NVMe
import Platform
import StorageVSC
import Synchronization
import VSC

/// The one disk that this plugin serves.
let export = Export()

final class Export: Sendable {
  private struct State {
    /// The configuration in the form of a driver program's arguments.
    var arguments: [String] = []
    var lun: UInt8 = 0
    /// Of an NVMe controller; nil for a disk on VMBus.
    var namespace: UInt32?
    var error: ProgramFailure?
    /// Tells the service manager that the workers answer.
    var watch: Task<Void, Never>?
    /// Closes what the disk is of.
    var close: (@Sendable () async -> Void)?
  }

  private let state = Lock(State())
  // Set once, before nbdkit serves anybody.
  private let opened = Lock<BlockDevice?>(nil)

  var disk: BlockDevice? { opened.withLock { $0 } }

  var openDisk: BlockDevice {
    get throws {
      guard let disk else { throw StorageError.channel(.ended(.closed)) }
      return disk
    }
  }

  // MARK: - Configuration

  func configure(key: String, value: String) {
    state.withLock { state in
      switch key {
      case "verbose": state.arguments.append("--verbose")
      case "host", "machine", "device", "cpu", "spin", "memory", "confidentiality", "vfio":
        state.arguments.append("--\(key)=\(value)")
      case "lun":
        if let lun = UInt8(value) {
          state.lun = lun
        } else {
          state.error = ProgramFailure(.usage, "lun=\(value): 0 to 255 is meant")
        }
      case "namespace":
        if let namespace = UInt32(value), namespace > 0 {
          state.namespace = namespace
        } else {
          state.error = ProgramFailure(.usage, "namespace=\(value): a number from 1 on is meant")
        }
      default:
        state.error = ProgramFailure(.usage, "'\(key)' is not known: see nbdkit --help PLUGIN")
      }
    }
  }

  func checkConfiguration() throws {
    if let error = state.withLock({ $0.error }) { throw error }
    _ = try options()
  }

  private func options() throws -> DriverOptions {
    let arguments = state.withLock { $0.arguments }
    do {
      return try DriverOptions.parse(arguments)
    } catch {
      throw ProgramFailure(.usage, DriverOptions.message(for: error))
    }
  }

  // MARK: - Opening and closing

  func open() throws {
    let (lun, namespace) = state.withLock { ($0.lun, $0.namespace) }
    try waiting { [self] in
      let options = try options()
      if let namespace {
        try await openNamespace(namespace, options)
      } else {
        try await openUnit(lun, options)
      }
    }
    // nbdkit listens before it calls this, so clients that come find a queue.
    guard let disk else { return }
    ServiceManager.own?.tell(.ready, .status("serves a disk of \(disk.byteCount) bytes"))
  }

  private func watch(_ workers: [Worker]) {
    guard let manager = ServiceManager.own else { return }
    state.withLock { $0.watch = Task { await manager.keepAlive(workers) } }
  }

  private func openUnit(_ lun: UInt8, _ options: DriverOptions) async throws {
    let found = try await openDevice(StorageVSC.deviceClass, options)
    do {
      let disk = try await StorageVSC.open(found.device, .init(lun: lun))
      state.withLock { $0.close = { await found.close() } }
      opened.withLock { $0 = disk }
      watch(found.device.workers)
    } catch {
      await found.close()
      throw error
    }
  }

  private func openNamespace(_ namespace: UInt32, _ options: DriverOptions) async throws {
    let found = try await openFunction(options)
    do {
      let controller = try await NVMeController.open(found.function, workers: found.workers)
      do {
        let disk = try await controller.disk(namespace)
        state.withLock { state in
          state.close = {
            await controller.close()
            await found.close()
          }
        }
        opened.withLock { $0 = disk }
        watch(found.workers)
      } catch {
        await controller.close()
        throw error
      }
    } catch {
      await found.close()
      throw error
    }
  }

  func close() {
    let close = state.withLock { state in
      defer { state.close = nil }
      state.watch?.cancel()
      return state.close
    }
    guard let close else { return }
    try? waiting { await close() }
  }

  /// Runs a task to its end: nbdkit's threads know nothing of tasks.
  private func waiting(_ body: @escaping @Sendable () async throws -> Void) throws {
    let done = DispatchSemaphore(value: 0)
    let outcome = Outcome()
    Task {
      do { try await body() } catch { outcome.error.withLock { $0 = error } }
      done.signal()
    }
    done.wait()
    if let error = outcome.error.withLock({ $0 }) { throw error }
  }
}

private final class Outcome: Sendable {
  let error = Lock<(any Error)?>(nil)
}

/// What an NBD client is told. The protocol knows few: nbdkit makes EIO of all others.
func errorNumber(_ error: any Error) -> CInt {
  switch error {
  case let error as StorageError:
    switch error {
    case .outOfRange: ENOSPC
    case .badLength: EINVAL
    case .readOnly: EROFS
    // What a request for fast zeroes gets when they would be slow.
    case .unsupported: EOPNOTSUPP
    case .failed where error.failure == .writeProtected: EROFS
    case .failed where error.failure == .outOfSpace: ENOSPC
    case .rejected where error.failure == .writeProtected: EROFS
    case .rejected where error.failure == .outOfSpace: ENOSPC
    case .channel, .removed, .noNamespace, .unresponsive: ESHUTDOWN
    default: EIO
    }
  case is StorageOpenError, is NVMeOpenError: ENODEV
  case let failure as ProgramFailure: failure.code == .usage ? EINVAL : ENODEV
  default: EIO
  }
}
