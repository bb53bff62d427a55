// SPDX-License-Identifier: Apache-2.0

import VSC

/// The packet of this device: a number, which the host sends back in its completion.
struct Echo: WireLayout {
  static let name: WireName = "echo"
  static let byteCount = 8
  var number: UInt64 = 0

  mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("number", &number)
  }
}

/// The driver: `start` is called when the device's channel is open, with memory of any lawful kind.
public struct EchoVSC: VSC {
  public static let deviceClass = DeviceClass("ec40ec40-0000-4000-8000-000000000001")
  public let limit: UInt64
  public let done: @Sendable (_ echoes: UInt64) -> Void

  public init(limit: UInt64, done: @escaping @Sendable (_ echoes: UInt64) -> Void) {
    self.limit = limit
    self.done = done
  }

  public func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    _ = worker.attach(EchoQueue(channel: channel, limit: limit, done: done))
  }
}

/// What the worker polls. It belongs to one thread: no locks, and nothing is allocated per packet.
struct EchoQueue<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var channel: Channel<Ring, External>
  var requests = Requests<UInt64>(capacity: 32)
  let limit: UInt64
  let done: @Sendable (UInt64) -> Void
  var sent: UInt64 = 0
  var echoes: UInt64 = 0

  init(
    channel: consuming Channel<Ring, External>, limit: UInt64,
    done: @escaping @Sendable (UInt64) -> Void
  ) {
    self.channel = channel
    self.limit = limit
    self.done = done
  }

  deinit { done(echoes) }

  /// Returns the work it did; nil when this queue is finished, or its channel.
  mutating func poll(budget: Int) -> Int? {
    do throws(ChannelError) { return try work(budget) } catch { return nil }
  }

  mutating func work(_ budget: Int) throws(ChannelError) -> Int? {
    var count = 0
    while count < budget, let packet = try channel.receive() {
      count += 1
      // The host may send anything: an id that was not given out finds no request, and a packet
      // too short to parse is an error of its own.
      guard packet.type == .completion,
        let request = requests.complete(packet.transactionID),
        let echo = try? Echo(parsing: channel.payload(of: packet)),
        echo.number == request.payload
      else {
        channel.counters.malformed += 1
        continue
      }
      echoes += 1
    }
    while sent < limit, let id = requests.nextID {
      try channel.send(message: Echo(number: sent), transactionID: id, completionRequested: true)
      requests.insert(sent)
      sent += 1
    }
    channel.flush()
    return sent == limit && requests.isEmpty ? nil : count
  }

  mutating func arm() -> Bool { channel.arm() }
  mutating func disarm() { channel.disarm() }
}
