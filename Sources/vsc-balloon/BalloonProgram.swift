// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BalloonVSC
import CLinux
import DriverProgram
import Logging
import Platform
import VSC

/// The dynamic memory driver as a program.
struct BalloonProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsc-balloon",
    abstract: "Reports this machine's memory to a Hyper-V host, and gives it pages when it asks.",
    discussion: """
      It prints a line for each report and each change, until SIGINT or SIGTERM; then the system \
      has all its memory back. On a real host end it only after the host has returned all pages: \
      what such a host does when a page that it still has is used again is not documented.

      To take memory it needs CAP_SYS_ADMIN (physical page numbers), CAP_IPC_LOCK (much pinned \
      memory), CAP_SYS_RESOURCE (to be spared by the out-of-memory killer), io_uring, and a \
      control group without a memory limit. Without them it reports only, and says why.
      """,
    version: projectVersion)

  @OptionGroup var options: DriverOptions

  @Option(
    help: ArgumentHelp(
      "Memory that stays available to the system. By default what Linux's own driver leaves: about 1/16 of 8 GiB, 1/32 of more.",
      valueName: "MiB"))
  var floor: Int?

  @Option(
    help: ArgumentHelp(
      "Memory that the host may have at most. By default as much as the floor allows.",
      valueName: "MiB"))
  var maxBalloon: Int?

  @Option(help: ArgumentHelp("Seconds between reports.", valueName: "seconds"))
  var interval: Double = 1

  @Option(help: ArgumentHelp("Seconds until the first report.", valueName: "seconds"))
  var delay: Double = 45

  @Flag(help: "Only report: tell the host that there is no balloon.")
  var reportOnly = false

  @Flag(help: "Print JSON, one object in each line.")
  var json = false

  func validate() throws {
    guard 0.001...86400 ~= interval else {
      throw ValidationError("--interval must be 0.001 to 86400 seconds.")
    }
    guard 0...86400 ~= delay else {
      throw ValidationError("--delay must be 0 to 86400 seconds.")
    }
    for (name, value) in [("--floor", floor), ("--max-balloon", maxBalloon)] {
      guard 0...1 << 40 ~= value ?? 0 else {
        throw ValidationError("\(name) must be 0 to 1099511627776 MiB.")
      }
    }
  }

  func run() async throws {
    try Termination.handle()
    let logger = options.makeLogger("balloon")
    let isProtected = reportOnly || vmbus_protect_from_oom_killer() == 0
    let printer = EventPrinter(isJSON: json, isProtected: isProtected, logger: logger)
    // The worker must not wait for a reader of this program's output; old lines are dropped.
    let (events, continuation) = AsyncStream.makeStream(
      of: (BalloonEvent, BalloonStatus).self, bufferingPolicy: .bufferingNewest(1024))
    let printing = Task {
      for await (event, status) in events { printer.print(event, status) }
    }
    let result: Result<Void, any Error>
    do {
      try await whileOffered(BalloonVSC.deviceClass, options, label: "balloon") { device in
        try await drive(device) { continuation.yield(($0, $1)) }
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    continuation.finish()
    await printing.value
    try result.get()
  }

  /// Returns why the device is gone, or nil when the program is told to end.
  private func drive(
    _ device: Device, _ tell: @escaping @Sendable (BalloonEvent, BalloonStatus) -> Void
  ) async throws -> ChannelEnd? {
    let ended = Promise<BalloonError>()
    let driver = BalloonVSC(configuration) { event, status in
      tell(event, status)
      if case .ended(let error) = event { ended.keep(error) }
    }
    let error = try await untilTermination {
      do {
        try await driver.start(device)
        ServiceManager.own?.tell(.ready, .status("reports this machine's memory"))
      } catch let error as BalloonError {
        return error
      }
      return await withTaskCancellationHandler {
        await ended.value()
      } onCancel: {
        ended.keep(.channel(.ended(.closed)))
      }
    }
    switch error {
    case nil: return nil
    case .channel(.ended(let end)): return end
    case let error?: throw ProgramFailure(.unavailable, "\(error)")
    }
  }

  private var configuration: BalloonVSC.Configuration {
    BalloonVSC.Configuration(
      floorPages: floor.map { UInt64($0) * 256 }, maximumPages: maxBalloon.map { UInt64($0) * 256 },
      reportDelay: UInt64(delay * 1e9), reportInterval: UInt64(interval * 1e9),
      takesMemory: !reportOnly)
  }
}
