// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import ProgramSupport
import SimulatedBus
import SystemPackage
import VMBusKernel
import VMBusLinux
import VMBusUIO
public import VSC

/// Finds the device that the options name, starts its workers, and closes all of it after `body`.
///
/// - Parameter workers: how many; by default one for each processor of `--cpu`.
public func withDevice<Result: Sendable>(
  _ deviceClass: DeviceClass, _ options: DriverOptions, workers: Int? = nil,
  _ body: (Device) async throws -> Result
) async throws -> Result {
  try await openDevice(deviceClass, options, workers: workers).use(body)
}

/// Finds the device that the options name, and starts its workers.
public func openDevice(
  _ deviceClass: DeviceClass, _ options: DriverOptions, workers: Int? = nil
) async throws -> FoundDevice {
  let bus = try await connect(options)
  do {
    return try FoundDevice(
      choose(bus, deviceClass, options.device), options, workers: workers, leaving: bus)
  } catch {
    await bus.disconnect()
    throw error
  }
}

/// Calls `body` with the bus that the options name, and leaves it after that.
public func withBus<Result>(
  _ options: DriverOptions, _ body: (any DeviceBus) async throws -> Result
) async throws -> Result {
  let bus = try await connect(options)
  do {
    let result = try await body(bus)
    await bus.disconnect()
    return result
  } catch {
    await bus.disconnect()
    throw error
  }
}

/// The simulated host that the options name, or this machine's own bus.
func connect(_ options: DriverOptions) async throws -> any DeviceBus {
  guard let path = options.host else {
    return LinuxBus(
      [KernelModuleDriver(), UIODriver()], said: options.confidentiality?.confidentiality)
  }
  var configuration = SimulatedBus.Configuration(machine: options.machine)
  configuration.memoryByteCount = options.memory << 20
  if options.requireConfidential { configuration.confidential = .require }
  configuration.logger = options.makeLogger("vmbus")
  do throws(TransportError) {
    return try await SimulatedBus.connect(path: path, configuration)
  } catch {
    throw ProgramFailure(error)
  }
}

/// A device with its workers.
public struct FoundDevice: Sendable {
  public let device: Device
  private let bus: (any DeviceBus)?

  /// Starts the workers.
  ///
  /// - Parameters:
  ///   - count: of workers. More than there are processors share them, in turn.
  ///   - bus: to be left when the device is closed.
  init(
    _ transport: any DeviceTransport, _ options: DriverOptions, workers count: Int? = nil,
    leaving bus: (any DeviceBus)? = nil
  ) throws {
    let wanted = count ?? options.cpu?.numbers.count ?? 1
    if wanted > 1, let reason = transport.whyNoSubchannels {
      options.makeLogger("vmbus").warning("one worker in place of \(wanted): \(reason)")
    }
    let usable = transport.whyNoSubchannels == nil ? count : 1
    device = Device(transport, workers: try startWorkers(options, usable))
    self.bus = bus
  }

  /// Calls `body` with the device, and closes it after that.
  func use<Result: Sendable>(_ body: (Device) async throws -> Result) async throws -> Result {
    do {
      let result = try await body(device)
      await close()
      return result
    } catch {
      await close()
      if let error = error as? TransportError { throw ProgramFailure(error) }
      throw error
    }
  }

  /// Ends the workers, which drops the driver's channels, and closes the device.
  public func close() async {
    for worker in device.workers { worker.stop() }
    await device.close()
    await bus?.disconnect()
  }
}

/// Starts the workers of a device.
///
/// - Parameter count: more than there are processors share them, in turn.
func startWorkers(_ options: DriverOptions, _ count: Int? = nil) throws -> [Worker] {
  var workers: [Worker] = []
  let cpus: [Int?] = options.cpu?.numbers ?? [nil]
  for number in 0..<max(count ?? cpus.count, 1) {
    let cpu = cpus[number % cpus.count]
    do throws(Errno) {
      let name = cpu.map { "vsc-\($0)" } ?? (number == 0 ? "vsc" : "vsc-q\(number)")
      workers.append(try Worker(.init(name: name, cpu: cpu, spinRounds: options.spin)))
    } catch {
      for worker in workers { worker.stop() }
      throw ProgramFailure(
        .usage, "processor \(cpu ?? 0) is not one that this process may use (see --cpu)")
    }
  }
  return workers
}

/// The device that a person named, among those of a class (or of any).
public func choose(
  _ bus: any DeviceBus, _ deviceClass: DeviceClass?, _ name: String?
) throws -> any DeviceTransport {
  let devices = try bus.devices.filter {
    deviceClass == nil || $0.identity.deviceClass == deviceClass
  }
  let kind = deviceClass.map { "\($0) " } ?? ""
  guard let name else {
    guard let only = devices.first(where: { $0.obstacle == nil }) ?? devices.first else {
      let why = bus.whyNoDevices.map { ": \($0)" } ?? ""
      throw ProgramFailure(.unavailable, "\(bus.name) has no \(kind)device\(why)")
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
    throw ProgramFailure(.unavailable, "\(bus.name) has no \(kind)device '\(name)'")
  }
  return found
}

extension ProgramFailure {
  init(_ error: TransportError) {
    switch error {
    case .notPermitted: self.init(.permission, "\(error)")
    default: self.init(.unavailable, "\(error)")
    }
  }
}
