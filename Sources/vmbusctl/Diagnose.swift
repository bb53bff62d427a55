// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceBinding
import DriverProgram
import ProgramSupport

struct Diagnose: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Says what this machine lacks for drivers in user space, and what mends it.",
    discussion: """
      Looks at the kernel and its modules, isolation, udev's rules, systemd's units, rights, huge pages, and \
      the devices that are bound for user space. Nothing is changed. The status is 1 when there is a fault. \
      Root sees more.
      """)

  @Flag(help: "Print JSON.")
  var json = false

  func run() async throws {
    let findings = Doctor().findings
    if json {
      print(
        try jsonText(
          findings.map { finding in
            [
              "subject": finding.subject, "verdict": finding.verdict.rawValue,
              "text": finding.text,
            ].merging(finding.remedy.map { ["remedy": $0] } ?? [:]) { first, _ in first }
          }))
    } else {
      let rows = findings.map { [$0.verdict.rawValue, $0.subject, $0.text] }
      for (line, finding) in zip(table(rows).split(separator: "\n"), findings) {
        print(line)
        if finding.verdict != .ok, let remedy = finding.remedy { print("         -> \(remedy)") }
      }
    }
    if findings.contains(where: { $0.verdict == .fault }) { throw ExitCode(1) }
  }
}
