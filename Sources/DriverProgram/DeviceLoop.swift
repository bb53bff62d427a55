// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import ProgramSupport
public import VSC

/// Calls `body` with the device that the options name, and again each time that the host, having
/// taken the device back, offers it anew.
///
/// - Parameters:
///   - label: of the log.
///   - workers: how many; by default one for each processor of `--cpu`.
///   - body: returns why the device is gone, or nil when the program is to end.
/// - Throws: `ProgramFailure` when the device is gone for good, and what `body` throws.
public func whileOffered(
  _ deviceClass: DeviceClass, _ options: DriverOptions, label: String, workers: Int? = nil,
  _ body: (Device) async throws -> ChannelEnd?
) async throws {
  try await withBus(options) { bus in
    var transport = try choose(bus, deviceClass, options.device)
    while true {
      let end = try await FoundDevice(transport, options, workers: workers).use { device in
        do {
          return try await keepingAlive(device.workers) { try await body(device) }
        } catch {
          // It went away while it was being opened: whatever the driver makes of that. It may come and
          // go a few times more.
          guard transport.endReason == .rescinded || error as? TransportError == .rescinded else {
            throw error
          }
          try await Task.sleep(for: .milliseconds(200))
          return ChannelEnd.rescinded
        }
      }
      guard let end else { return }
      guard end == .rescinded, bus.bringsBack else {
        throw ProgramFailure(.unavailable, "the device is gone: \(end)")
      }
      let instance = transport.identity.instance
      options.makeLogger(label).warning("\(end): waiting for \(instance) to come back")
      ServiceManager.own?.tell(.status("\(end): waiting for the device to come back"))
      let next = try await keepingAlive {
        try await untilTermination { try await bus.comesBack(instance) }
      }
      guard let next = next ?? nil else { return }
      transport = next
    }
  }
}

/// The result of `body`, or nil when SIGINT or SIGTERM comes before.
public func untilTermination<Result: Sendable>(
  _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result? {
  try await withThrowingTaskGroup(of: Result?.self) { group in
    group.addTask {
      try await Termination.next()
      if !Task.isCancelled { ServiceManager.own?.tell(.stopping) }
      return nil
    }
    group.addTask { try await body() }
    defer { group.cancelAll() }
    return try await group.next() ?? nil
  }
}
