// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceBinding
import DriverProgram
import SimulatedBus
import VSC

struct VMBusControl: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmbusctl",
    abstract:
      "Shows VMBus devices, gives them to user space and back, and gives people a host to try drivers on.",
    version: projectVersion,
    subcommands: [
      List.self, Show.self, Bind.self, Unbind.self, Restore.self, Diagnose.self, Simulate.self,
      Guest.self,
    ])
}

/// Where the devices are.
struct BusOptions: ParsableArguments {
  @OptionGroup var options: DriverOptions

  @Flag(help: "Print JSON.")
  var json = false
}

struct List: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lists every device: class, driver, memory, and why one is not usable.",
    aliases: ["ls"])

  @OptionGroup var bus: BusOptions

  func run() async throws {
    let (rows, reason) = try await withBus(bus.options) { bus in
      for complaint in bus.complaints { printError("vmbusctl: \(complaint)") }
      return (try bus.devices.map { DeviceReport($0) }, bus.whyNoDevices)
    }
    if bus.json {
      print(try jsonText(rows.map(\.json)))
    } else if rows.isEmpty {
      print("no devices" + (reason.map { ": \($0)" } ?? ""))
    } else {
      let header = ["RELID", "CLASS", "INSTANCE", "RING", "DMA", "DRIVER", "STATUS"]
      print(table([header] + rows.map(\.columns)))
    }
  }
}

struct Show: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows all that is known of one device.")

  @Argument(
    help:
      "An instance GUID, a relid, a class with its place (scsi or scsi:1), or a network interface.")
  var name: String

  @OptionGroup var bus: BusOptions

  func run() async throws {
    let name = instance ?? name
    let report = try await withBus(bus.options) { bus in DeviceReport(try choose(bus, nil, name)) }
    if bus.json {
      print(try jsonText(report.json))
    } else {
      let width = report.lines.map(\.name.count).max() ?? 0
      for line in report.lines {
        print(line.name + spaces(width - line.name.count + 2) + line.value)
      }
    }
  }

  /// Of the device with a network interface of that name, on this machine.
  private var instance: String? {
    guard bus.options.host == nil, case .vmbus(let guid) = try? NamedDevice(interface: name) else {
      return nil
    }
    return "\(guid)"
  }
}
