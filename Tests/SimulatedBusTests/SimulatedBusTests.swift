// SPDX-License-Identifier: Apache-2.0

import EchoVSC
import SimulatedHost
import Testing
import VSC

@testable import SimulatedBus

/// A socket path of its own for each test.
func socketPath(_ name: String = #function) -> String {
  "/tmp/vmbus-test-\(name.prefix { $0 != "(" })-\(UInt32.random(in: 0 ... .max)).sock"
}

func array(_ bytes: RawSpan) -> [UInt8] {
  unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
}

/// Sends so many numbers to an echo device, and returns how many came back right.
func countEchoes(of count: UInt64, on device: Device) async throws -> UInt64 {
  try await withCheckedThrowingContinuation { continuation in
    Task {
      do {
        try await EchoVSC(count: count) { continuation.resume(with: $0) }.start(device)
      } catch {
        continuation.resume(throwing: error)
      }
    }
  }
}

@Suite(.timeLimit(.minutes(10))) struct SimulatedBusTests {
  /// Runs an echo of so many packets and returns how many came back.
  func echo(
    _ machine: Machine, flags: OfferFlags = [], count: UInt64 = 10_000,
    versions: [ProtocolVersion] = ProtocolVersion.supported
  ) async throws -> (received: UInt64, memory: Confidentiality?, version: ProtocolVersion?) {
    let host = try SimulatedHost(path: socketPath())
    host.add(EchoVSP(flags: flags))
    var configuration = SimulatedBus.Configuration(machine: machine)
    configuration.versions = versions
    let bus = try await SimulatedBus.connect(path: host.path, configuration)
    let version = bus.connection?.version
    let transport = try #require(bus.devices.first)
    let worker = try Worker(.init(name: "echo"))
    let device = Device(transport, workers: [worker])
    let memory = device.identity.confidentiality
    let received = try await countEchoes(of: count, on: device)
    await device.close()
    await bus.disconnect()
    worker.stop()
    host.stop()
    return (received, memory, version)
  }

  @Test(arguments: Machine.allCases)
  func packetsGoThereAndBack(_ machine: Machine) async throws {
    let result = try await echo(machine)
    #expect(result.received == 10_000)
    #expect(result.memory == .hostVisible)
    #expect(result.version == .v6_0)
  }

  @Test(arguments: [
    (OfferFlags.confidentialRingBuffer, Confidentiality.ring),
    (OfferFlags.confidential, .ringAndExternalMemory),
  ])
  func aParavisorsDevicesUseEncryptedMemory(
    _ flags: OfferFlags, _ expected: Confidentiality
  ) async throws {
    let result = try await echo(.confidential, flags: flags)
    #expect(result.memory == expected)
    #expect(result.received == 10_000)
  }

  @Test func aHostCannotOfferEncryptedMemory() async throws {
    let result = try await echo(.isolated, flags: .confidential)
    #expect(result.memory == .hostVisible)
  }

  @Test(arguments: ProtocolVersion.supported)
  func eachVersionWorks(_ version: ProtocolVersion) async throws {
    let result = try await echo(.plain, count: 100, versions: [version])
    #expect(result.version == version)
    #expect(result.received == 100)
  }

  @Test func aSocketThatNobodyListensOnIsRefused() async throws {
    await #expect(throws: TransportError.self) {
      try await SimulatedBus.connect(path: "/tmp/vmbus-test-nobody.sock")
    }
  }

  @Test func aDeviceIsOpenOnceAtATime() async throws {
    let host = try SimulatedHost(path: socketPath())
    host.add(EchoVSP())
    let bus = try await SimulatedBus.connect(path: host.path)
    let transport = try #require(bus.devices.first)
    let worker = try Worker(.init(name: "echo"))
    let device = Device(transport, workers: [worker])
    try await EchoVSC(count: 0, report: { _ in }).start(device)
    await #expect(throws: TransportError.alreadyOpen) {
      try await EchoVSC(count: 0, report: { _ in }).start(device)
    }
    worker.stop()
    await device.close()
    // Closed, so it can be opened again.
    let again = try Worker(.init(name: "echo"))
    let second = Device(transport, workers: [again])
    let received = try await countEchoes(of: 10, on: second)
    #expect(received == 10)
    again.stop()
    await bus.disconnect()
    host.stop()
  }

  @Test func aRescindedDeviceEndsItsChannel() async throws {
    let host = try SimulatedHost(path: socketPath())
    let id = host.add(EchoVSP())
    let bus = try await SimulatedBus.connect(path: host.path)
    let transport = try #require(bus.devices.first)
    let worker = try Worker(.init(name: "echo"))
    let device = Device(transport, workers: [worker])
    let end: ChannelError? = await withCheckedContinuation { continuation in
      Task {
        try await EchoVSC(count: 0) { result in
          if case .failure(let error) = result { continuation.resume(returning: error) }
        }.start(device)
        host.revoke(id)
      }
    }
    #expect(end == .ended(.rescinded))
    #expect(bus.devices.isEmpty)
    await device.close()
    await bus.disconnect()
    worker.stop()
    host.stop()
  }

  @Test func waitingForTheEndCanBeCancelled() async throws {
    let host = try SimulatedHost(path: socketPath())
    host.add(EchoVSP())
    let bus = try await SimulatedBus.connect(path: host.path)
    let transport = try #require(bus.devices.first)
    let waiter = Task { await transport.ended() }
    waiter.cancel()
    #expect(await waiter.value == .closed)
    await bus.disconnect()
    host.stop()
  }

  /// Page 0x10000 is encrypted memory of this machine, 0x100000 host-visible, 5 is nothing.
  @Test(arguments: [(GPN(0x10_0000), true), (0x1_0000, false), (5, false)])
  func aGPADLOverMemoryThatTheHostMayNotSeeIsRefused(
    _ page: GPN, _ isAccepted: Bool
  ) async throws {
    let host = try SimulatedHost(path: socketPath())
    host.add(EchoVSP())
    let bus = try await SimulatedBus.connect(path: host.path, .init(machine: .isolated))
    let range = try #require(GPADLRange(pages: [page]))
    let (id, actions) = try bus.core.locked { state in
      Result { try state.client.createGPADL(1, ranges: [range]) }
    }.get()
    let status = try await bus.core.ask(.gpadl(id)) { _ throws(ControlError) in actions }
    #expect(status.isSuccess == isAccepted)
    await bus.disconnect()
    host.stop()
  }

  @Test func theEndOfTheHostEndsEveryChannel() async throws {
    let host = try SimulatedHost(path: socketPath())
    host.add(EchoVSP())
    let bus = try await SimulatedBus.connect(path: host.path)
    let transport = try #require(bus.devices.first)
    let worker = try Worker(.init(name: "echo"))
    let device = Device(transport, workers: [worker])
    let end: ChannelError? = await withCheckedContinuation { continuation in
      Task {
        try await EchoVSC(count: 0) { result in
          if case .failure(let error) = result { continuation.resume(returning: error) }
        }.start(device)
        host.stop()
      }
    }
    #expect(end == .ended(.hostGone))
    await device.close()
    await bus.disconnect()
    worker.stop()
  }
}
