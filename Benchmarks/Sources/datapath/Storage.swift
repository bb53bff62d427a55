// SPDX-License-Identifier: Apache-2.0

import Dispatch
import StorageVSC
import Synchronization
import VMBus
import VSC

/// The storage driver's burst face: reads and writes of 4 KiB, eight under way, from `submit` to
/// the completion, with the bytes copied in and out. The host is a script in the same thread,
/// which keeps to the same law.
func runStorage(_ packets: Int) throws {
  let done = DispatchSemaphore(value: 0)
  let failure = Failure()
  Task {
    do { try await drive(packets) } catch { failure.error.withLock { $0 = error } }
    done.signal()
  }
  done.wait()
  if let error = failure.error.withLock({ $0 }) { throw error }
}

private final class Failure: Sendable {
  let error = Mutex<(any Error)?>(nil)
}

private struct WrongState: Error {}

private func drive(_ packets: Int) async throws {
  let transport = try HeapTransport()
  let worker = try Worker(.init(name: "idle", spinRounds: 0))
  defer { worker.stop() }
  let device = Device(transport, workers: [worker])
  var pool: DMAPool<HostVisible> = try device.makePool(count: 9, byteCount: 4096)
  guard let answer = pool.take() else { throw WrongState() }
  let opened = try await device.open(ChannelParameters(), on: worker)
  guard case .hostVisible(let channel) = consume opened else { throw WrongState() }
  var queue = StorageQueue<HostVisible, HostVisible>(
    channel, .init(depth: 8), answer: answer)
  var host = try HeapHost(transport)
  while queue.disk == nil {
    if queue.next() != nil || queue.failure != nil { throw WrongState() }
    try host.serve()
  }
  try measure(packets, &queue, &pool, &host)
}

@inline(never)
private func measure(
  _ packets: Int, _ queue: inout StorageQueue<HostVisible, HostVisible>,
  _ pool: inout DMAPool<HostVisible>, _ host: inout HeapHost
) throws {
  var application = InlineArray<4096, UInt8>(repeating: 5)
  var sent = 0
  var received = 0
  while received < packets {
    while sent < packets, !queue.isFull, let buffer = pool.take() {
      var given = Optional.some(buffer)
      if sent % 2 == 0 {
        try queue.read(at: UInt64(sent & 1023), blockCount: 8, into: &given, tag: UInt64(sent))
      } else {
        var filled = given.take()
        let source = application.span
        unsafe filled?.copyIn(source.bytes)
        given = filled
        try queue.write(at: UInt64(sent & 1023), blockCount: 8, from: &given, tag: UInt64(sent))
      }
      sent &+= 1
    }
    queue.publish()
    try host.serve()
    while let completion = queue.next() {
      guard case .success(4096) = completion.result, let buffer = completion.buffer else {
        throw WrongState()
      }
      if completion.tag % 2 == 0 {
        var target = application.mutableSpan
        var bytes = unsafe target.mutableBytes
        buffer.copyOut(into: &bytes)
      }
      received &+= 1
    }
  }
}
