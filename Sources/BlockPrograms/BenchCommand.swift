// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
public import BlockStorage
import ProgramSupport
import VSC

public struct BenchCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "bench",
      abstract: "Measures the disk: requests per second, bandwidth, latency.",
      discussion: """
        The patterns that write overwrite the disk with zeros. With several processors (--cpu 0,1) each \
        has a channel of its own, as far as the host offers them.
        """)
  }

  public init() {}

  @OptionGroup public var disk: Source

  @Option(help: "read, write, randread, randwrite or mixed (random, 70 % reads).")
  var pattern: BenchPattern = .randread

  @Option(help: ArgumentHelp("Bytes of each request, such as 4K.", valueName: "bytes"))
  var blockSize = ByteCount(bytes: 4096)

  @Option(help: ArgumentHelp("Requests under way, of each worker.", valueName: "count"))
  var depth: Int = 32

  @Option(help: ArgumentHelp("How long to measure.", valueName: "seconds"))
  var time: Double = 5

  @Option(help: ArgumentHelp("End after so many requests, if that is earlier.", valueName: "count"))
  var requests: UInt64?

  @Flag(
    help: """
      Copy each request's bytes between private memory and DMA memory, as an application in an \
      isolated machine must. By default only where that is so.
      """)
  var bounce = false

  @Flag(help: "Print JSON.")
  var json = false

  public func validate() throws {
    guard 1...4096 ~= depth else { throw ValidationError("--depth must be 1 to 4096.") }
    guard time > 0, time <= 86400 else {
      throw ValidationError("--time must be more than 0 and at most 86400 seconds.")
    }
    guard blockSize.bytes > 0, blockSize.bytes <= 2 << 20 else {
      throw ValidationError("--block-size must be 1 to 2M.")
    }
    guard requests != 0 else { throw ValidationError("--requests must be 1 or more.") }
  }

  public func run() async throws {
    let plan = BenchPlan(
      pattern: pattern, byteCount: Int(blockSize.bytes), depth: depth,
      nanoseconds: UInt64(time * 1e9), requests: requests ?? .max, bounces: bounce)
    let gate = BenchGate()
    let report = try await disk.measure(plan, gate) { try await Self.follow(plan, gate) }
    print(json ? try jsonText(report) : report.text)
  }

  private static func follow(_ plan: BenchPlan, _ gate: BenchGate) async throws -> BenchReport {
    let display = Task {
      var progress = Progress()
      var before: UInt64 = 0
      while !Task.isCancelled {
        do { try await Task.sleep(for: .seconds(1)) } catch { break }
        let now = gate.completed
        let rate = now - before
        before = now
        progress.show { "\(Int($0)) s: \(rate) requests per second" }
      }
      progress.clear()
    }
    let outcome = await gate.outcome(plan)
    display.cancel()
    await display.value
    switch outcome {
    case .success(let report): return report
    case .failure(.plan(let text)): throw ProgramFailure(.usage, text)
    case .failure(.storage(let error)): throw ProgramFailure(storage: error)
    }
  }
}

public enum BenchPattern: String, ExpressibleByArgument, CaseIterable, Sendable {
  case read, write, randread, randwrite, mixed

  var isRandom: Bool { self != .read && self != .write }
  var writes: Bool { self != .read && self != .randread }
  /// Of 100 requests, so many read.
  var readShare: UInt64 {
    switch self {
    case .read, .randread: 100
    case .write, .randwrite: 0
    case .mixed: 70
    }
  }
}

public struct BenchPlan: Sendable {
  var pattern: BenchPattern
  public var byteCount: Int
  public var depth: Int
  var nanoseconds: UInt64
  var requests: UInt64
  var bounces: Bool
}

public enum BenchFailure: Error {
  /// The plan does not fit the disk.
  case plan(String)
  case storage(StorageError)
}

/// What `bench` prints.
public struct BenchReport: Encodable, Sendable {
  struct Latency: Encodable, Sendable {
    var minimum, mean, p50, p90, p99, p999, maximum: Double
  }

  var pattern: String
  var blockSize: Int
  /// Of each channel.
  var depth: Int
  var channels: Int
  var seconds: Double
  var requests: UInt64
  var requestsPerSecond: Double
  var bytesPerSecond: Double
  /// Microseconds.
  var latency: Latency
  /// direct or bounced.
  var data: String
  var dataMemory: String
  /// Nanoseconds that one copy of a block takes, and its share of the time per request: spent if
  /// bounced, saved if direct.
  var copyNanoseconds: Double
  var copyShare: Double
  /// Signals to the host.
  var doorbells: UInt64
  /// Of all channels together.
  var memory: DMAStatistics

  var text: String {
    func time(_ microseconds: Double) -> String { "\(decimal(microseconds, 1)) µs" }
    return table([
      [
        "pattern",
        "\(pattern), \(blockSize) bytes, depth \(depth) on \(channels) "
          + "channel\(channels == 1 ? "" : "s"), \(data) (\(dataMemory) memory)",
      ],
      ["time", "\(decimal(seconds, 2)) s"],
      ["requests", "\(requests), \(decimal(requestsPerSecond, 0)) per second"],
      ["bandwidth", "\(humanBytes(bytesPerSecond))/s"],
      [
        "latency",
        "min \(time(latency.minimum)), mean \(time(latency.mean)), max \(time(latency.maximum))",
      ],
      [
        "percentiles",
        "50: \(time(latency.p50)), 90: \(time(latency.p90)), 99: \(time(latency.p99)), "
          + "99.9: \(time(latency.p999))",
      ],
      [
        "memcpy",
        "\(decimal(copyNanoseconds, 0)) ns per block, "
          + "\(decimal(copyShare * 100, 1)) % of the time per request"
          + (data == "bounced" ? "" : " (not spent)"),
      ],
      ["doorbells", "\(doorbells)"],
      ["DMA memory", memory.useText],
      ["copied", memory.copyText],
    ])
  }
}
