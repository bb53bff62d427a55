// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import DriverProgram
import StorageVSC
import VSC

struct ListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the disks of the controller.",
    discussion: "With --follow it then tells what comes, goes or changes, until SIGINT or SIGTERM.")

  @OptionGroup var driver: DriverOptions

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "Go on with what happens to the disks, a line each.")
  var follow = false

  func validate() throws {
    if json && follow { throw ValidationError("--follow prints no JSON.") }
  }

  func run() async throws {
    if follow { try Termination.handle() }
    let (json, follow) = (json, follow)
    try await withController(driver) { controller in
      // From before the list on, so that nothing is missed.
      let events = controller.events()
      let reports = controller.disks.map { DiskReport($0.information) }
      if json {
        print(try jsonText(reports))
      } else {
        print(DiskReport.list(reports, number: "LUN"))
      }
      guard follow else { return }
      _ = try await untilTermination { for await event in events { print(Self.line(event)) } }
      if let reason = controller.ended { throw reason }
    }
  }

  private static func line(_ event: StorageController.Event) -> String {
    switch event {
    case .added(let disk): "LUN \(disk.lun) came: \(humanBytes(Double(disk.byteCount)))"
    case .removed(let lun): "LUN \(lun) went away"
    case .resized(let disk, let from):
      "LUN \(disk.lun) has another size: \(humanBytes(Double(disk.byteCount))), "
        + "before \(humanBytes(Double(from)))"
    case .changed(let disk):
      "LUN \(disk.lun) changed: "
        + (disk.information.disk.isReadOnly ? "read-only" : "read and write")
    }
  }
}
