// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import BalloonVSC
import SimulatedBus
import SimulatedHost
import Synchronization
import Testing
import VSC

/// A balloon driver on a host, and all that it has told.
final class BalloonBed: Sendable {
  struct Told: Sendable {
    var events: [BalloonEvent] = []
    var status = BalloonStatus()
  }

  let host: SimulatedHost
  let bus: SimulatedBus
  let worker: Worker
  let device: Device
  private let state = Lock(Told())

  init(_ vsp: any VSP) async throws {
    host = try SimulatedHost(path: socketPath("balloon"))
    host.add(vsp)
    bus = try await SimulatedBus.connect(path: host.path)
    worker = try Worker(.init(name: "balloon"))
    let transport = try #require(bus.devices.first)
    device = Device(transport, workers: [worker])
  }

  /// Starts the driver; reports come at once and often.
  func start(_ change: (inout BalloonVSC.Configuration) -> Void = { _ in }) async throws {
    var configuration = BalloonVSC.Configuration(
      floorPages: 0, maximumPages: 4096, reportDelay: 0, reportInterval: 5_000_000)
    change(&configuration)
    let driver = BalloonVSC(configuration) { event, status in
      self.state.withLock { told in
        told.events.append(event)
        told.status = status
      }
    }
    try await driver.start(device)
  }

  var told: Told { state.withLock { $0 } }

  /// Waits until something holds, for half a minute at most.
  func wait(
    _ condition: () -> Bool, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    for _ in 0..<6000 {
      if condition() { return }
      try await Task.sleep(for: .milliseconds(5))
    }
    Issue.record("it never came: \(told.status)", sourceLocation: sourceLocation)
  }

  func close() async {
    worker.stop()
    await device.close()
    await bus.disconnect()
    host.stop()
  }
}

/// A host that accepts any guest and then sends what a test gives it.
final class ScriptedBalloonVSP: VSP {
  let offer: OfferChannel
  private let script: [[UInt8]]
  private let answersVersions: Int
  private let state = Lock<[[UInt8]]>([])

  /// - Parameters:
  ///   - accepts: the version requests from this one on are accepted, from 0; a negative number
  ///     never answers.
  ///   - script: messages that are sent after the start-up.
  init(accepts: Int = 0, _ script: [[UInt8]]) {
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.balloon.guid
    offer.instanceID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a004"
    self.offer = offer
    self.script = script
    answersVersions = accepts
  }

  /// What the guest has sent but for its reports.
  var received: [[UInt8]] { state.withLock { $0 } }

  func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    _ = worker.attach(Server(channel: channel, vsp: self))
  }

  struct Server: Pollable, ~Copyable {
    var channel: HostChannel
    let vsp: ScriptedBalloonVSP
    var versions = 0

    init(channel: consuming HostChannel, vsp: ScriptedBalloonVSP) {
      self.channel = channel
      self.vsp = vsp
    }

    mutating func poll(budget: Int) -> Int? {
      var work = 0
      do {
        while work < budget, let packet = try channel.receive() {
          work += 1
          try answer(array(channel.payload(of: packet)))
        }
      } catch {
        return nil
      }
      channel.flush()
      return work == 0 && channel.isClosed ? nil : work
    }

    mutating func answer(_ message: [UInt8]) throws {
      guard message[0] != 5 else { return }
      vsp.state.withLock { $0.append(message) }
      guard vsp.answersVersions >= 0 else { return }
      if message[0] == 1 {
        try send([2, 0, 16, 0, 0, 0, 0, 0, versions >= vsp.answersVersions ? 1 : 0] + zeros(7))
        versions += 1
      } else if message[0] == 3 {
        try send([4, 0, 16, 0, 0, 0, 0, 0, 1] + zeros(7))
        for message in vsp.script { try send(message) }
      }
    }

    mutating func send(_ message: [UInt8]) throws {
      try channel.send(unsafe message.span.bytes)
    }

    mutating func arm() -> Bool { channel.arm() }
    mutating func disarm() { channel.disarm() }
  }
}

func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }

/// Why this process can give no memory to a host: the tests that need it are left out then.
func canBalloon() async -> Bool {
  do {
    let bed = try await BalloonBed(BalloonVSP(instance: GUID()))
    try await bed.start()
    let problem = bed.told.status.memoryProblem
    await bed.close()
    return problem == nil
  } catch {
    return false
  }
}
