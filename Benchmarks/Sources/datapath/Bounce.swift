// SPDX-License-Identifier: Apache-2.0

import Dispatch
import VSC

/// Moves 4 KiB out of buffers that the host could see, which leaves zeros behind, beside copies that
/// leave them as they are. Prints nanoseconds of each, tab between.
func runBounce(_ count: Int) throws {
  let device = try HeapDevice(.event, .hostVisible)
  let worker = try Worker(.init(name: "bounce"))
  let owner = Device(device, workers: [worker])
  defer { worker.stop() }
  try blocking { done in
    // A primary channel decides what the pool's memory is.
    try await BounceVSC(count: count).start(owner)
    done.signal()
  }
}

private struct BounceVSC: VSC {
  static var deviceClass: DeviceClass { .scsi }
  let count: Int

  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    // As many as requests are under way at depth 256.
    let buffers = 256
    var pool: DMAPool<External> = try device.makePool(count: 1, byteCount: buffers * 4096)
    guard var buffer = pool.take() else { throw WrongPacket() }
    let target = UnsafeMutableRawBufferPointer.allocate(byteCount: buffers * 4096, alignment: 4096)
    defer { unsafe target.deallocate() }
    unsafe target.initializeMemory(as: UInt8.self, repeating: 1)
    guard let to = target.baseAddress else { return }
    var best = (moved: UInt64.max, copied: UInt64.max)
    // The best of many rounds: what else the machine does only makes a round longer.
    for _ in 0..<max(count, 1) {
      let start = MonotonicClock.now()
      for offset in stride(from: 0, to: buffers * 4096, by: 4096) {
        unsafe buffer.bytes.withUnsafeBytes { from in
          guard let from = from.baseAddress else { return }
          unsafe (to + offset).copyMemory(from: from + offset, byteCount: 4096)
        }
      }
      let between = MonotonicClock.now()
      for offset in stride(from: 0, to: buffers * 4096, by: 4096) {
        var span = unsafe MutableRawSpan(_unsafeStart: to + offset, byteCount: 4096)
        buffer.moveOut(from: offset, into: &span)
      }
      let end = MonotonicClock.now()
      best = (min(best.moved, end - between), min(best.copied, between - start))
    }
    print("\(Double(best.moved) / Double(buffers))\t\(Double(best.copied) / Double(buffers))")
  }
}
