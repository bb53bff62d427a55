// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import BlockStorage
import DriverProgram
import NVMe
import VSC

struct ListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the namespaces of the controller.")

  @OptionGroup var driver: DriverOptions

  @Flag(help: "Print JSON.")
  var json = false

  func run() async throws {
    let reports = try await withController(driver) { controller, _ in
      var reports: [DiskReport] = []
      for namespace in try await controller.namespaces() {
        reports.append(DiskReport(try await controller.disk(namespace).information))
      }
      return reports
    }
    print(json ? try jsonText(reports) : DiskReport.list(reports, number: "namespace"))
  }
}
