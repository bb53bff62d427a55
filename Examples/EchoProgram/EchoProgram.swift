// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import EchoVSC

@main struct EchoProgram: DriverProgram {
  static let configuration = CommandConfiguration(
    commandName: "vsc-echo", abstract: "Sends a device numbers, and counts those that come back.")

  @OptionGroup var options: DriverOptions
  func makeDriver() -> EchoVSC { EchoVSC(count: 1000) { print($0) } }
}
