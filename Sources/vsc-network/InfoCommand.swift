// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import NetworkProtocol
import NetworkVSC
import VSC

struct InfoCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info",
    abstract: "Tells what the network device is, and what its queues did.",
    discussion: """
      Without --stats it opens the device, which nobody else may have open. With it, it asks a \
      running 'vsc-network tap --stats'.
      """)

  @OptionGroup var options: NetworkOptions

  @Option(
    help: ArgumentHelp("The socket of a running program (its --stats).", valueName: "path"))
  var stats: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() async throws {
    let report: InterfaceReport
    if let stats {
      report = try StatisticsSocket.askReport(path: stats)
    } else {
      report = try await fromDevice()
    }
    print(json ? try jsonText(report) : report.text)
  }

  private func fromDevice() async throws -> InterfaceReport {
    var configuration = options.configuration
    // No frame is wanted.
    configuration.filter = []
    let chosen = configuration
    do {
      return try await withDevice(.network, options.driver, workers: options.queues) { device in
        // Its loops drop what comes.
        let interface = try await NetworkVSC.open(device, chosen, user: BenchUser())
        let report = InterfaceReport(interface.information, await interface.statistics())
        await interface.close()
        return report
      }
    } catch {
      throw ProgramFailure.wrapping(error)
    }
  }
}
