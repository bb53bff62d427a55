// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import Platform
public import SimulatedBus
import SystemPackage
public import VSC

/// Turns a driver into a program: arguments, logging, signals, exit codes.
///
///     @main struct Echo: DriverProgram {
///       @OptionGroup var options: DriverOptions
///       func makeDriver() -> EchoVSC { EchoVSC() }
///     }
///
/// The program drives its device until it is told to end (SIGINT, SIGTERM: exit code 0) or the
/// device goes away (exit code 69).
public protocol DriverProgram: AsyncParsableCommand {
  associatedtype Driver: VSC

  var options: DriverOptions { get }

  func makeDriver() throws -> Driver
}

extension DriverProgram {
  public static func main() async { await runProgram() }

  public func run() async throws {
    try Termination.handle()
    let driver = try makeDriver()
    let end = try await withDevice(Driver.deviceClass, options) { device in
      try await driver.start(device)
      return try await withThrowingTaskGroup(of: ChannelEnd?.self) { group in
        group.addTask {
          try await Termination.next()
          return nil
        }
        group.addTask { await device.ended() }
        let first = try await group.next() ?? nil
        group.cancelAll()
        return first
      }
    }
    if let end { throw ProgramFailure(.unavailable, "the device is gone: \(end)") }
  }
}

/// Finds the device that the options name, opens its workers, and closes all of it after `body`.
public func withDevice<Result: Sendable>(
  _ deviceClass: DeviceClass, _ options: DriverOptions,
  _ body: (Device) async throws -> Result
) async throws -> Result {
  let found = try await openDevice(deviceClass, options)
  do {
    let result = try await body(found.device)
    await found.close()
    return result
  } catch {
    await found.close()
    throw error
  }
}

/// A device with its workers and the bus that it was found on.
public struct FoundDevice: Sendable {
  public let device: Device
  let bus: SimulatedBus

  /// Ends the workers, which drops the driver's channels; closes the device; leaves the bus.
  public func close() async {
    for worker in device.workers { worker.stop() }
    await device.close()
    await bus.disconnect()
  }
}

/// Finds the device that the options name, and starts the workers for it.
public func openDevice(
  _ deviceClass: DeviceClass, _ options: DriverOptions
) async throws -> FoundDevice {
  guard let path = options.host else {
    throw ProgramFailure(.usage, "say where the device is: --host PATH of a simulated host")
  }
  var workers: [Worker] = []
  let cpus: [Int?] = options.cpu?.numbers ?? [nil]
  for cpu in cpus {
    do throws(Errno) {
      let name = cpu.map { "vsc-\($0)" } ?? "vsc"
      workers.append(
        try Worker(.init(name: name, cpu: cpu, spinRounds: options.spin)))
    } catch {
      for worker in workers { worker.stop() }
      throw ProgramFailure(
        .usage, "processor \(cpu ?? 0) is not one that this process may use (see --cpu)")
    }
  }
  do {
    let bus = try await connect(path, options)
    do {
      let transport = try choose(bus.devices, deviceClass, options.device, path)
      return FoundDevice(device: Device(transport, workers: workers), bus: bus)
    } catch {
      await bus.disconnect()
      throw error
    }
  } catch {
    for worker in workers { worker.stop() }
    throw error
  }
}

/// Joins the simulated host at `path`.
public func connect(_ path: String, _ options: DriverOptions) async throws -> SimulatedBus {
  var configuration = SimulatedBus.Configuration(machine: options.machine)
  configuration.memoryByteCount = options.memory << 20
  configuration.logger = options.makeLogger("vmbus")
  do throws(TransportError) {
    return try await SimulatedBus.connect(path: path, configuration)
  } catch {
    throw ProgramFailure(.unavailable, "\(error)")
  }
}

/// The device that a person named, among those of a class (or of any).
public func choose(
  _ devices: [any DeviceTransport], _ deviceClass: DeviceClass?, _ name: String?, _ path: String
) throws -> any DeviceTransport {
  let devices = devices.filter { deviceClass == nil || $0.identity.deviceClass == deviceClass }
  let kind = deviceClass.map { "\($0) " } ?? ""
  guard let name else {
    guard let only = devices.first else {
      throw ProgramFailure(.unavailable, "\(path) has no \(kind)device")
    }
    return only
  }
  let found: (any DeviceTransport)?
  if let guid = GUID(name) {
    found = devices.first { $0.identity.instance == guid }
  } else if let number = Int(name) {
    let byRelid = devices.first { Int($0.identity.channel.rawValue) == number }
    found =
      deviceClass == nil ? byRelid : devices.indices.contains(number) ? devices[number] : byRelid
  } else if let colon = name.lastIndex(of: ":"), let index = Int(name[name.index(after: colon)...]),
    let named = DeviceClass(named: name[..<colon])
  {
    let ofClass = devices.filter { $0.identity.deviceClass == named }
    found = ofClass.indices.contains(index) ? ofClass[index] : nil
  } else if let named = DeviceClass(named: name) {
    found = devices.first { $0.identity.deviceClass == named }
  } else {
    throw ProgramFailure(
      .usage, "'\(name)' is no GUID, relid or class: vmbusctl list shows the devices")
  }
  guard let found else {
    throw ProgramFailure(.unavailable, "\(path) has no \(kind)device '\(name)'")
  }
  return found
}
