// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import NetworkProtocol
import NetworkVSC
import VSC

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measures the device: packets per second by size and direction, latency.",
    discussion: """
      It opens the device, which nobody else may have open. What there is to receive, the other end \
      must send: with 'vmbus-host' a generator, or a loopback, which sends back what it gets, so that \
      the time until a frame is back is measured too.
      """)

  @OptionGroup var options: NetworkOptions

  @Option(help: "send, receive or both.")
  var direction: BenchDirection = .both

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Bytes of a frame: one or several sizes.", valueName: "bytes"))
  var size: [Int] = [64]

  @Option(help: ArgumentHelp("How long to measure, for each size.", valueName: "seconds"))
  var time: Double = 5

  @Option(
    help: ArgumentHelp(
      "With both directions: frames of each queue that are on their way; 0 for no limit.",
      valueName: "count"))
  var depth: UInt64 = 256

  @Option(
    help: ArgumentHelp("Whom to send to; by default the device itself.", valueName: "address"))
  var to: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    guard time > 0, time <= 86400 else {
      throw ValidationError("--time must be more than 0 and at most 86400 seconds.")
    }
    guard size.allSatisfy({ 60...options.mtu + 14 ~= $0 }), !size.isEmpty else {
      throw ValidationError("--size must be 60 to \(options.mtu + 14), the MTU and 14 bytes.")
    }
    guard to == nil || to.flatMap(MACAddress.init) != nil else {
      throw ValidationError("--to must be an address such as 00:15:5d:00:00:01.")
    }
  }

  func run() async throws {
    let report = try await measure()
    print(json ? try jsonText(report) : report.text)
  }

  private func measure() async throws -> BenchReport {
    let user = BenchUser()
    do {
      return try await withDevice(.network, options.driver, workers: options.queues) { device in
        let interface = try await NetworkVSC.open(
          device, options.configuration, user: user, events: { _ in })
        let information = interface.information
        var report = BenchReport(information)
        for byteCount in size {
          let plan = BenchPlan.Run(
            direction: direction, byteCount: byteCount, depth: depth,
            destination: to.flatMap(MACAddress.init) ?? information.macAddress)
          user.begin(plan, from: information.macAddress)
          await wait(user, byteCount)
          let parts = await user.end()
          if let error = interface.ended { throw error }
          report.runs.append(BenchReport.Run(plan, parts))
        }
        return report
      }
    } catch {
      throw ProgramFailure.wrapping(error)
    }
  }

  /// Waits until the time is over, and shows how far it is.
  private func wait(_ user: BenchUser, _ byteCount: Int) async {
    var progress = Progress()
    var before: UInt64 = 0
    let clock = ContinuousClock()
    let end = clock.now + .seconds(time)
    while clock.now < end {
      let next = min(end, clock.now + .seconds(1))
      do { try await clock.sleep(until: next) } catch { break }
      guard next < end else { break }
      let now = await user.progress()
      let rate = now &- before
      before = now
      progress.show { "\(byteCount) bytes, \(Int($0)) s: \(rate) packets per second" }
    }
    progress.clear()
  }
}

enum BenchDirection: String, ExpressibleByArgument, CaseIterable, Sendable {
  case send, receive, both
}

enum BenchPlan {
  /// One measurement.
  struct Run: Sendable {
    var direction: BenchDirection
    var byteCount: Int
    var depth: UInt64
    var destination: MACAddress
  }
}

/// What `bench` prints.
struct BenchReport: Encodable, Sendable {
  struct Latency: Encodable, Sendable {
    var minimum, mean, p50, p90, p99, p999, maximum: Double
  }

  struct Run: Encodable, Sendable {
    var direction: String
    var size: Int
    var seconds: Double
    var sent, received, lost: UInt64
    var sentPerSecond, receivedPerSecond: Double
    /// Of frames, without what a wire adds.
    var sentBitsPerSecond, receivedBitsPerSecond: Double
    /// Microseconds until a frame was back; nil where none came back.
    var latency: Latency?
    /// Signals to the host.
    var doorbells: UInt64
  }

  var address: String
  var networkProtocol: String
  var queueCount: Int
  var runs: [Run] = []

  init(_ information: NetworkInformation) {
    address = "\(information.macAddress)"
    networkProtocol = "\(information.version)"
    queueCount = information.queueCount
  }

  var text: String {
    let header = [
      "direction", "size", "sent/s", "Gbit/s", "received/s", "Gbit/s", "lost", "mean µs", "50 %",
      "99 %", "99.9 %",
    ]
    func time(_ value: Double?) -> String { value.map { decimal($0, 1) } ?? "-" }
    return table(
      [header]
        + runs.map { run in
          [
            run.direction, "\(run.size)", decimal(run.sentPerSecond, 0),
            decimal(run.sentBitsPerSecond / 1e9, 2), decimal(run.receivedPerSecond, 0),
            decimal(run.receivedBitsPerSecond / 1e9, 2), "\(run.lost)", time(run.latency?.mean),
            time(run.latency?.p50), time(run.latency?.p99), time(run.latency?.p999),
          ]
        })
  }
}

extension BenchReport.Run {
  init(_ plan: BenchPlan.Run, _ parts: [BenchPart]) {
    var latencies = Latencies()
    for part in parts { latencies.add(part.latencies) }
    direction = plan.direction.rawValue
    size = plan.byteCount
    seconds = Double(parts.map(\.nanoseconds).max() ?? 1) / 1e9
    sent = parts.map(\.sent).reduce(0, +)
    received = parts.map(\.received).reduce(0, +)
    lost = parts.map(\.lost).reduce(0, +)
    doorbells = parts.map(\.doorbells).reduce(0, +)
    sentPerSecond = Double(sent) / seconds
    receivedPerSecond = Double(received) / seconds
    sentBitsPerSecond = sentPerSecond * Double(8 * plan.byteCount)
    receivedBitsPerSecond = Double(8 * parts.map(\.receivedBytes).reduce(0, +)) / seconds
    guard latencies.count > 0 else { return }
    func microseconds(_ nanoseconds: Double) -> Double { nanoseconds / 1000 }
    latency = BenchReport.Latency(
      minimum: microseconds(Double(latencies.minimum)), mean: microseconds(latencies.mean),
      p50: microseconds(latencies.percentile(0.5)), p90: microseconds(latencies.percentile(0.9)),
      p99: microseconds(latencies.percentile(0.99)),
      p999: microseconds(latencies.percentile(0.999)),
      maximum: microseconds(Double(latencies.maximum)))
  }
}
