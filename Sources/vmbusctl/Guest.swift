// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram

/// Runs a command in a Linux guest of the simulated host: what an author needs who has no Hyper-V.
struct Guest: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a command in a Linux guest of a simulated host, on KVM.",
    discussion: """
      A small system with busybox and the running kernel's modules (or another one's: --kernel) is made \
      for it. The command's output is printed, and its status is this program's: \
      vmbusctl guest --disk disk.img -- fdisk -l /dev/sda. All options are vmbus-vm's.
      """)

  @Argument(
    parsing: .captureForPassthrough,
    help: ArgumentHelp("Options of vmbus-vm, and the command.", valueName: "arguments"))
  var arguments: [String] = []

  func run() async throws {
    throw ProgramFailure(
      .unavailable, replaceProcess([siblingProgram("vmbus-vm")] + arguments))
  }
}
