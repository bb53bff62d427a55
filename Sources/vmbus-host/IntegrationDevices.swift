// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FoundationEssentials
import IntegrationProtocol
import Logging
import ProgramSupport
import SimulatedHost

/// The integration components of the command line, and what is done with them later.
final class IntegrationDevices: Sendable {
  /// A list such as `heartbeat,shutdown`.
  struct Argument: ExpressibleByArgument {
    let components: [IntegrationComponent]

    init?(argument: String) {
      var components: [IntegrationComponent] = []
      for word in argument.split(separator: ",", omittingEmptySubsequences: false) {
        guard let component = IntegrationComponent(rawValue: String(word)),
          !components.contains(component)
        else { return nil }
        components.append(component)
      }
      self.components = components
    }
  }

  let devices: [IntegrationVSP]
  private let logger: Logger

  init(_ argument: Argument?, logger: Logger) {
    self.logger = logger
    devices = (argument?.components ?? []).map { IntegrationVSP($0, logger: logger) }
  }

  /// What can be written to the control pipe.
  static let commands = """
    integration shutdown|restart|hibernate (asks guests to end), integration sync (guests set \
    their clocks), integration counters FILE (JSON)
    """

  /// One line of the control pipe behind `integration`.
  func execute(_ line: String) {
    do {
      let words = line.split(separator: " ", maxSplits: 1).map(String.init)
      let command = words.first ?? ""
      if let wanted = IntegrationShutdown(rawValue: command) {
        try device(.shutdown).shutDown(wanted)
      } else if command == "sync" {
        try device(.timeSync).synchronize()
      } else if command == "counters", words.count == 2 {
        try writeCounters(to: words[1])
      } else {
        throw ProgramFailure(.usage, "there are: \(Self.commands)")
      }
      logger.info("done: integration \(line)")
    } catch {
      logger.error("integration \(line): \(error)")
    }
  }

  private func device(_ component: IntegrationComponent) throws -> IntegrationVSP {
    guard let device = devices.first(where: { $0.component == component }) else {
      throw ProgramFailure(.usage, "there is no --integration \(component.rawValue)")
    }
    return device
  }

  private struct Report: Encodable {
    let component: String
    let guest: Int
    let stage: String
    let framework: String?
    let version: String?
    let sent: UInt64
    let answered: UInt64
    let heartbeats: UInt64
    let missed: UInt64
    let guestState: UInt32
    let shutdown: String
    let violations: [String]
  }

  private func writeCounters(to path: String) throws {
    let reports = devices.flatMap { device in
      device.records.sorted { $0.key < $1.key }.map { guest, record in
        Report(
          component: device.component.rawValue, guest: guest, stage: record.stage.rawValue,
          framework: record.framework?.description, version: record.message?.description,
          sent: record.sent, answered: record.answered, heartbeats: record.beats,
          missed: record.missed, guestState: record.guestState.rawValue,
          shutdown: "\(record.shutdown)", violations: record.violations.map { "\($0)" })
      }
    }
    // Whole or not at all, for those who wait for the file.
    try Data(jsonText(reports).utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
  }
}
