// SPDX-License-Identifier: Apache-2.0

import BlockPrograms
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
  let gate: BenchGate
  private let agreed = Promise<StorageAgreement?>()

  init(plan: BenchPlan, lun: UInt8, gate: BenchGate) {
    self.plan = plan
    self.lun = lun
    self.gate = gate
  }

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
    let (agreed, isBounced) = (agreed, pool.isBounced)
    attach(
      BenchLoop(
        queue, pool, isBounced: isBounced, plan, gate, index: 0
      ) { agreed.keep($0.agreement) }, 0, to: worker)
    // A start-up that fails is the outcome.
    guard let agreement = await agreed.value() else { return }
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
        attach(
          BenchLoop(queue, pool, isBounced: isBounced, plan, gate, index: index), index,
          to: next)
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
    _ loop: consuming sending BenchLoop<StorageQueue<Ring, External>>, _ index: Int,
    to worker: Worker
  ) {
    let (gate, agreed) = (gate, agreed)
    _ = worker.attach(loop) {
      agreed.keep(nil)
      gate.finish(index, .failure(.storage(.channel(.ended(.closed)))))
    }
  }
}
