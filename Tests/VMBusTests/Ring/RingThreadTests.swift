// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Glibc
import Testing

@testable import VMBus

/// Both ends in threads of their own, that sleep whenever they may. Semaphores stand in for the
/// interrupts: one that is not signalled when it must be is a sleeper who is never woken.
@Suite(.serialized) struct RingThreadTests {
  static let packets: UInt64 = 120_000

  /// The two doorbells, and how often somebody slept.
  final class Bells: Sendable {
    let toConsumer = DispatchSemaphore(value: 0)
    let toProducer = DispatchSemaphore(value: 0)
  }

  enum Failure: Error {
    case lostWakeUp
    case wrongPacket(UInt64)
  }

  static func sleep(_ bell: DispatchSemaphore) throws {
    // Only a lost wake-up takes so long.
    guard bell.wait(timeout: .now() + 60) == .success else { throw Failure.lostWakeUp }
  }

  static func size(_ id: UInt64, _ largest: UInt64) -> Int {
    Int(truncatingIfNeeded: (id &* 0x9e37_79b9_7f4a_7c15 >> 33) % largest)
  }

  static func produce(
    _ ring: GuardedRing, _ bells: Bells, batch: UInt64, largest: UInt64
  ) throws -> Int {
    var producer = try ring.producer()
    let bytes = [UInt8](repeating: 7, count: 2048)
    var slept = 0
    for id in 0..<packets {
      let size = size(id, largest)
      while true {
        do throws(RingError) {
          try unsafe producer.write(
            .inBand, transactionID: id, payload: bytes.span.bytes.extracting(first: size))
          break
        } catch .full(let needed, _) {
          if producer.commit() { bells.toConsumer.signal() }
          if try !producer.waitForSpace(needed) {
            slept += 1
            try sleep(bells.toProducer)
            producer.stopWaitingForSpace()
          }
        }
      }
      if id % batch == 0, producer.commit() { bells.toConsumer.signal() }
    }
    if producer.commit() { bells.toConsumer.signal() }
    return slept
  }

  static func consume(_ ring: GuardedRing, _ bells: Bells, largest: UInt64) throws -> Int {
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    var slept = 0
    var next: UInt64 = 0
    while next < packets {
      if let packet = try consumer.receive(into: &buffer) {
        let payload = buffer.payload(of: packet)
        let size = size(next, largest)
        let first = size == 0 ? 7 : unsafe payload.unsafeLoad(as: UInt8.self)
        guard packet.transactionID == next, payload.byteCount == (size + 7) & ~7, first == 7
        else { throw Failure.wrongPacket(next) }
        next += 1
        continue
      }
      if consumer.commit() { bells.toProducer.signal() }
      if try !consumer.arm() {
        slept += 1
        try sleep(bells.toConsumer)
      }
      consumer.mask()
    }
    if consumer.commit() { bells.toProducer.signal() }
    return slept
  }

  @Test(arguments: [(1, 64), (1, 2048), (7, 2048)] as [(UInt64, UInt64)])
  func noWakeUpIsLost(_ batch: UInt64, _ largest: UInt64) throws {
    let ring = GuardedRing()
    let bells = Bells()
    let other = Thread { try Self.consume(ring, bells, largest: largest) }
    let producerSlept = try Self.produce(ring, bells, batch: batch, largest: largest)
    let consumerSlept = try other.join()
    // Sleep was possible on both sides, so that the handshakes were tried.
    #expect(producerSlept + consumerSlept > 100)
  }
}

/// A thread with a result.
@safe
private final class Thread: @unchecked Sendable {
  private let body: () throws -> Int
  private var result: Result<Int, any Error> = .success(0)
  private var handle = pthread_t()

  init(_ body: @escaping @Sendable () throws -> Int) {
    self.body = body
    let this = unsafe Unmanaged.passRetained(self)
    let status = unsafe pthread_create(
      &handle, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        let this = unsafe Unmanaged<Thread>.fromOpaque(argument).takeRetainedValue()
        this.result = Result(catching: this.body)
        return nil
      }, this.toOpaque())
    precondition(status == 0)
  }

  func join() throws -> Int {
    pthread_join(handle, nil)
    return try result.get()
  }
}
