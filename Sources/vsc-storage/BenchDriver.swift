// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import Platform
import StorageVSC
import Synchronization
import VSC

/// The measurement as a driver of its own, on the burst face: a channel for each worker.
struct BenchDriver: VSC {
  static var deviceClass: DeviceClass { StorageVSC.deviceClass }

  let plan: BenchPlan
  let lun: UInt8
  let gate = BenchGate()

  var channelParameters: ChannelParameters {
    // Room for all of them, with a page number for each page.
    let packet = 128 + 8 * (plan.byteCount / 4096 + 1)
    return ChannelParameters(
      ringByteCount: max(128 * 1024, (plan.depth * packet * 2 + 4095) & ~4095))
  }

  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    var pool: DMAPool<External> = try device.makePool(
      count: plan.depth + 1, byteCount: plan.byteCount)
    guard let answer = pool.take() else {
      throw TransportError.outOfMemory(External.memory, byteCount: plan.byteCount)
    }
    let queue = StorageQueue(
      channel,
      StorageQueue<Ring, External>.Configuration(
        lun: lun, depth: plan.depth, subchannels: device.workers.count - 1), answer: answer)
    attach(BenchLoop(queue, pool, plan, gate, index: 0), 0, to: worker)
    // A start-up that fails is the outcome.
    guard let agreement = await gate.agreement() else { return }
    var workers = [worker]
    for next in device.workers.dropFirst().prefix(agreement.subchannelCount) {
      let index = workers.count
      do throws(TransportError) {
        let channel: Channel<Ring, External> = try await device.openSubchannel(
          UInt16(clamping: index), channelParameters, on: next)
        let pool: DMAPool<External> = try device.makePool(
          count: plan.depth + 1, byteCount: plan.byteCount)
        let queue = StorageQueue(
          subchannel: channel,
          StorageQueue<Ring, External>.Configuration(lun: lun, depth: plan.depth), agreement)
        attach(BenchLoop(queue, pool, plan, gate, index: index), index, to: next)
        workers.append(next)
      } catch {
        // The host offers fewer than there are workers: the report says how many.
        break
      }
    }
    gate.open(workers.count)
    for worker in workers { worker.post {} }
  }

  private func attach<Ring: Visibility, External: Visibility>(
    _ loop: consuming sending BenchLoop<Ring, External>, _ index: Int, to worker: Worker
  ) {
    let gate = gate
    _ = worker.attach(loop) {
      gate.finish(index, .failure(.storage(.channel(.ended(.closed)))))
    }
  }

  /// What all channels did, or the first failure.
  func outcome() async -> Result<BenchReport, BenchFailure> {
    var parts: [BenchPart] = []
    for await outcome in gate.outcomes {
      switch outcome {
      case .failure(let failure): return .failure(failure)
      case .success(let part):
        parts.append(part)
        if parts.count == gate.channelCount { return .success(BenchReport(plan, parts)) }
      }
    }
    return .failure(.storage(.cancelled))
  }
}

/// Where the channels of a measurement meet: they begin together, and each tells what it did.
final class BenchGate: Sendable {
  private let count = Atomic<UInt64>(0)
  private let channels = Atomic<Int>(0)
  private let finished = Lock<Set<Int>>([])
  private let agreed = Promise<StorageAgreement?>()
  let outcomes: AsyncStream<Result<BenchPart, BenchFailure>>
  private let sink: AsyncStream<Result<BenchPart, BenchFailure>>.Continuation

  init() { (outcomes, sink) = AsyncStream<Result<BenchPart, BenchFailure>>.makeStream() }

  /// How far the channels are, for the display.
  var completed: UInt64 { count.load(ordering: .relaxed) }
  func publish(_ more: UInt64) {
    if more > 0 { count.add(more, ordering: .relaxed) }
  }

  func announce(_ agreement: StorageAgreement) { agreed.keep(agreement) }
  /// Nil when the start-up failed.
  func agreement() async -> StorageAgreement? { await agreed.value() }

  var isOpen: Bool { channels.load(ordering: .acquiring) > 0 }
  var channelCount: Int { max(channels.load(ordering: .acquiring), 1) }
  func open(_ count: Int) { channels.store(count, ordering: .releasing) }

  /// The first outcome of each channel counts.
  func finish(_ index: Int, _ outcome: Result<BenchPart, BenchFailure>) {
    agreed.keep(nil)
    if finished.withLock({ $0.insert(index).inserted }) { sink.yield(outcome) }
  }
}

/// What one channel did.
struct BenchPart: Sendable {
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
