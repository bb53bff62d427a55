// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Platform
import ProgramSupport
import Synchronization
import VSC

/// Where the channels of a measurement meet: they begin together, and each tells what it did.
public final class BenchGate: Sendable {
  private let count = Atomic<UInt64>(0)
  private let channels = Atomic<Int>(0)
  private let finished = Lock<Set<Int>>([])
  public let outcomes: AsyncStream<Result<BenchPart, BenchFailure>>
  private let sink: AsyncStream<Result<BenchPart, BenchFailure>>.Continuation

  public init() { (outcomes, sink) = AsyncStream<Result<BenchPart, BenchFailure>>.makeStream() }

  /// How far the channels are, for the display.
  public var completed: UInt64 { count.load(ordering: .relaxed) }
  func publish(_ more: UInt64) {
    if more > 0 { count.add(more, ordering: .relaxed) }
  }

  var isOpen: Bool { channels.load(ordering: .acquiring) > 0 }
  public var channelCount: Int { max(channels.load(ordering: .acquiring), 1) }
  public func open(_ count: Int) { channels.store(count, ordering: .releasing) }

  /// The first outcome of each channel counts.
  public func finish(_ index: Int, _ outcome: Result<BenchPart, BenchFailure>) {
    if finished.withLock({ $0.insert(index).inserted }) { sink.yield(outcome) }
  }
}

extension BenchGate {
  /// What all channels did, or the first failure.
  public func outcome(_ plan: BenchPlan) async -> Result<BenchReport, BenchFailure> {
    var parts: [BenchPart] = []
    for await outcome in outcomes {
      switch outcome {
      case .failure(let failure): return .failure(failure)
      case .success(let part):
        parts.append(part)
        if parts.count == channelCount { return .success(BenchReport(plan, parts)) }
      }
    }
    return .failure(.storage(.cancelled))
  }
}

/// What one channel did.
public struct BenchPart: Sendable {
  var latencies: Latencies.Record
  var nanoseconds: UInt64
  var requests: UInt64
  var isBounced: Bool
  var memory: String
  var copyNanoseconds: Double
  var doorbells: UInt64
  var statistics: DMAStatistics
}

extension BenchReport {
  init(_ plan: BenchPlan, _ parts: [BenchPart]) {
    var latencies = Latencies()
    for part in parts { latencies.add(part.latencies) }
    let seconds = Double(parts.map(\.nanoseconds).max() ?? 1) / 1e9
    let rate = Double(latencies.count) / seconds
    let copy = parts.map(\.copyNanoseconds).reduce(0, +) / Double(max(parts.count, 1))
    func microseconds(_ nanoseconds: Double) -> Double { nanoseconds / 1000 }
    self.init(
      pattern: plan.pattern.rawValue, blockSize: plan.byteCount, depth: plan.depth,
      channels: parts.count, seconds: seconds, requests: latencies.count,
      requestsPerSecond: rate, bytesPerSecond: rate * Double(plan.byteCount),
      latency: BenchReport.Latency(
        minimum: microseconds(Double(latencies.minimum)), mean: microseconds(latencies.mean),
        p50: microseconds(latencies.percentile(0.5)),
        p90: microseconds(latencies.percentile(0.9)),
        p99: microseconds(latencies.percentile(0.99)),
        p999: microseconds(latencies.percentile(0.999)),
        maximum: microseconds(Double(latencies.maximum))),
      data: parts.contains { $0.isBounced } ? "bounced" : "direct",
      dataMemory: parts.first?.memory ?? "", copyNanoseconds: copy,
      copyShare: copy * rate / Double(max(parts.count, 1)) / 1e9,
      doorbells: parts.map(\.doorbells).reduce(0, +),
      memory: parts.reduce(into: DMAStatistics()) { $0.add($1.statistics) })
  }
}
