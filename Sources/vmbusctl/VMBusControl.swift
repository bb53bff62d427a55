// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import SimulatedBus
import VSC

struct VMBusControl: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmbusctl",
    abstract: "Shows VMBus devices, and gives people a host to try drivers on.",
    version: projectVersion,
    subcommands: [List.self, Show.self, Simulate.self])
}

/// Where the devices are: on this machine, or on a simulated host.
struct BusOptions: ParsableArguments {
  @OptionGroup var options: DriverOptions

  @Flag(help: "Print JSON.")
  var json = false

  /// Calls `body` with the bus, and leaves it after that.
  func withBus<Result>(
    _ path: String, _ body: (SimulatedBus) async throws -> Result
  ) async throws -> Result {
    let bus = try await connect(path, options)
    do {
      let result = try await body(bus)
      await bus.disconnect()
      return result
    } catch {
      await bus.disconnect()
      throw error
    }
  }
}

struct List: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lists every device: class, driver, memory, and why one is not usable.",
    aliases: ["ls"])

  @OptionGroup var bus: BusOptions

  func run() async throws {
    var (rows, whyNothing): ([DeviceReport], String?) = ([], nil)
    if let path = bus.options.host {
      rows = try await bus.withBus(path) { bus in bus.devices.map { DeviceReport($0) } }
    } else {
      var machine = try MachineDevices()
      machine.complain()
      rows = try machine.reports()
      whyNothing = machine.whyNothing
    }
    if bus.json {
      print(try jsonText(rows.map(\.json)))
    } else if rows.isEmpty {
      print(["no devices", whyNothing].compactMap { $0 }.joined(separator: ": "))
    } else {
      let header = ["RELID", "CLASS", "INSTANCE", "RING", "DMA", "DRIVER", "STATUS"]
      print(table([header] + rows.map(\.columns)))
    }
  }
}

struct Show: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows all that is known of one device.")

  @Argument(help: "An instance GUID, a relid, or a class with its place: scsi or scsi:1.")
  var name: String

  @OptionGroup var bus: BusOptions

  func run() async throws {
    let report: DeviceReport
    if let path = bus.options.host {
      report = try await bus.withBus(path) { bus in
        DeviceReport(try choose(bus.devices, nil, name, path))
      }
    } else {
      var machine = try MachineDevices()
      report = try machine.report(machine.choose(name))
    }
    if bus.json {
      print(try jsonText(report.json))
    } else {
      let width = report.lines.map(\.name.count).max() ?? 0
      for line in report.lines {
        print(line.name + spaces(width - line.name.count + 2) + line.value)
      }
    }
  }
}
