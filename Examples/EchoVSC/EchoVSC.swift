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

/// The driver. `start` gets the device's open channel, with memory of any lawful kind.
public struct EchoVSC: VSC {
  public static let deviceClass = DeviceClass("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a001")
  /// Numbers to send; with 0 it waits for the end of the channel.
  let count: UInt64
  let report: @Sendable (Result<UInt64, ChannelError>) -> Void

  public init(count: UInt64, report: @escaping @Sendable (Result<UInt64, ChannelError>) -> Void) {
    self.count = count
    self.report = report
  }

  public func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    _ = worker.attach(EchoQueue(driver: self, channel: channel))
  }
}

/// What the worker polls. It belongs to one thread: no lock, and nothing allocated per packet.
struct EchoQueue<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  let driver: EchoVSC
  var channel: Channel<Ring, External>
  var requests = Requests<UInt64>(capacity: 32)
  var sent: UInt64 = 0
  var echoes: UInt64 = 0

  init(driver: EchoVSC, channel: consuming Channel<Ring, External>) {
    self.driver = driver
    self.channel = channel
  }

  /// Returns the work it did, or nil when it is finished.
  mutating func poll(budget: Int) -> Int? {
    do throws(ChannelError) {
      let work = try receive(budget) + send()
      channel.flush()
      guard driver.count > 0, sent == driver.count, requests.isEmpty else { return work }
      driver.report(.success(echoes))
    } catch {
      driver.report(.failure(error))
    }
    return nil
  }

  mutating func receive(_ budget: Int) throws(ChannelError) -> Int {
    var work = 0
    while work < budget, let packet = try channel.receive() {
      work += 1
      // The host may send anything: an id that was not given out finds no request, and a packet
      // that is too short does not parse.
      if packet.type == .completion, let request = requests.complete(packet.transactionID),
        let echo = try? Echo(parsing: channel.payload(of: packet)), echo.number == request.payload
      {
        echoes += 1
      } else {
        channel.counters.malformed += 1
      }
    }
    return work
  }

  mutating func send() throws(ChannelError) -> Int {
    var work = 0
    while sent < driver.count, let id = requests.nextID {
      try channel.send(message: Echo(number: sent), transactionID: id, completionRequested: true)
      requests.insert(sent)
      sent += 1
      work += 1
    }
    return work
  }

  mutating func arm() -> Bool { channel.arm() }
  mutating func disarm() { channel.disarm() }
}
