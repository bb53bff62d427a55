// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Platform
import Synchronization
import SystemPackage
import VMBus
import VMBusLinux
import VSC

/// A VMBus device of this machine, in the hands of the kernel module hv_uservsc.
final class KernelDevice: DeviceTransport {
  let identity: DeviceIdentity
  private let record: VMBusDeviceRecord
  private let machine: LinuxMachine
  private let life = DeviceLife()
  /// What was found out when the device was; nil when it could not be asked.
  private let probe: ModuleProbe?
  /// From the first use to `close`.
  private let session = Lock<KernelSession?>(nil)

  init(_ record: VMBusDeviceRecord, on machine: LinuxMachine) {
    self.record = record
    self.machine = machine
    probe = Self.probe(record)
    let known = probe?.confidentiality ?? (try? machine.confidentiality(of: record.channel).value)
    identity = DeviceIdentity(
      deviceClass: record.deviceClass, instance: record.instance, channel: record.channel,
      confidentiality: known,
      transport: record.driver == KernelModuleDriver.name ? record.moduleNode : "VMBus")
  }

  private static func probe(_ record: VMBusDeviceRecord) -> ModuleProbe? {
    guard record.driver == KernelModuleDriver.name,
      let facts = try? NodeFacts(ofNode: record.moduleNode), facts.isAccessible,
      facts.lockedBy == nil
    else { return nil }
    return ModuleProbe(node: record.moduleNode)
  }

  // MARK: - What an operator can ask

  var obstacle: DeviceObstacle? {
    do throws(DiscoveryError) {
      let obstacle = try record.obstacle(
        .running(), node: { path throws(DiscoveryError) in try NodeFacts(ofNode: path) },
        probe: { probe ?? ModuleProbe(node: record.moduleNode) })
      return obstacle.map { DeviceObstacle($0.description, remedy: $0.remedy) }
    } catch {
      return DeviceObstacle("\(error)")
    }
  }

  var properties: [DeviceProperty] {
    guard case .facts(let facts)? = probe else {
      let known = try? machine.confidentiality(of: record.channel)
      return record.properties(identity, on: machine, memoryKnown: known.map { "\($0.source)" }, [])
    }
    return record.properties(
      identity, on: machine, memoryKnown: "the kernel module says so", facts.properties)
  }

  // MARK: - Opening

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    try await open(identity.channel, 0, parameters, worker)
  }

  func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    try await open(try await subchannel(index), index, parameters, worker)
  }

  /// Waits for the host's offer.
  private func subchannel(_ index: UInt16) async throws(TransportError) -> ChannelID {
    guard index > 0, let session = session.withLock({ $0 }) else { throw .noSubchannels }
    for _ in 0..<200 {
      if let end = life.reason { throw end == .rescinded ? .rescinded : .hostGone }
      do throws(Errno) {
        if let found = try session.file.channel(index) { return found.channel }
      } catch {
        throw session.failure(error)
      }
      do { try await Task.sleep(for: .milliseconds(50)) } catch { break }
    }
    throw .timedOut("subchannel offer")
  }

  private func open(
    _ id: ChannelID, _ number: UInt16, _ parameters: ChannelParameters, _ worker: Worker
  ) async throws(TransportError) -> RawChannel {
    let channel = try await life.opening(id) {
      () async throws(TransportError) -> KernelChannelState in
      try await self.waiting { () throws(TransportError) in
        try self.openRing(id, number, parameters, worker)
      }
    }
    return channel.raw
  }

  /// Waiting for the host is nothing for a thread that tasks share.
  private func waiting<Value: Sendable>(
    _ body: @escaping @Sendable () throws(TransportError) -> Value
  ) async throws(TransportError) -> Value {
    let result = await withCheckedContinuation { continuation in
      DispatchQueue.global().async { continuation.resume(returning: Result(catching: body)) }
    }
    return try result.get()
  }

  private func openRing(
    _ id: ChannelID, _ number: UInt16, _ parameters: ChannelParameters, _ worker: Worker
  ) throws(TransportError) -> KernelChannelState {
    let session = try openSession()
    let confidentiality = try confidentiality(of: number, session)
    let event: EventDescriptor
    do throws(Errno) {
      event = try EventDescriptor()
    } catch {
      throw .system("eventfd", code: error.rawValue, text: "\(error)")
    }
    let ring = try session.open(
      number, ringByteCount: parameters.ringByteCount, event: event, parameters.userData)
    return KernelChannelState(
      id, number, confidentiality, life, session, worker, ring: ring, event: event)
  }

  /// Which memory a channel uses, asked anew at each open.
  private func confidentiality(
    of number: UInt16, _ session: KernelSession
  ) throws(TransportError) -> Confidentiality {
    let channel: ModuleChannel?
    do throws(Errno) {
      channel = try session.file.channel(number)
    } catch {
      throw session.failure(error)
    }
    guard let channel else { throw .rescinded }
    guard let ring = ModuleVisibility(rawValue: channel.ring),
      let confidentiality = try? ModuleFacts.confidentiality(
        ring: ring, external: session.facts.external)
    else { throw .unlawfulFlags(session.facts.offerFlags) }
    return confidentiality
  }

  /// The session of this device as it is now. What was true when the device was found may have changed:
  /// it may be another driver's by now, or another offer of the same device.
  private func openSession() throws(TransportError) -> KernelSession {
    try session.withLock { session throws(TransportError) in
      if let session { return session }
      try checkBinding()
      let opened = try KernelSession(node: record.moduleNode, life)
      guard opened.facts.channel == record.channel else { throw TransportError.rescinded }
      try opened.watch()
      session = opened
      return opened
    }
  }

  private func checkBinding() throws(TransportError) {
    let now: VMBusDeviceRecord?
    var obstacle: BindingObstacle?
    do throws(DiscoveryError) {
      now = try VMBusInventory().device(record.instance)
      obstacle = try now?.obstacle(to: KernelModuleDriver.name, .running())
      if obstacle == nil, let facts = try NodeFacts(ofNode: record.moduleNode) {
        obstacle = NodeFacts.obstacle(
          facts, node: record.moduleNode, subsystem: KernelModuleDriver.name)
      }
    } catch {
      throw .unusable(reason: "\(error)")
    }
    guard now?.channel == record.channel else { throw .rescinded }
    if let obstacle { throw .unusable(reason: "\(obstacle)") }
  }

  // MARK: - Memory and the end

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = try KernelMemory(openSession(), memory, byteCount: byteCount)
    life.keep(pages)
    return pages.pages
  }

  func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages {
    guard let session = session.withLock({ $0 }) else { throw .rescinded }
    let shared = try await waiting { () throws(TransportError) in
      try KernelSharedMemory(session, memory, byteCount: byteCount)
    }
    life.keep(shared)
    return shared.pages
  }

  var endReason: ChannelEnd? { life.reason }

  func ended() async -> ChannelEnd { await life.ended() }

  /// The module frees the memory when it has closed what is open, and nobody here has it mapped.
  func close() async {
    _ = await life.close()
    session.withLock { $0 = nil }
  }
}

extension ModuleProbe {
  fileprivate var confidentiality: Confidentiality? {
    guard case .facts(let facts) = self else { return nil }
    return try? facts.confidentiality()
  }
}

extension ModuleFacts {
  /// For people.
  fileprivate var properties: [DeviceProperty] {
    [
      DeviceProperty("module interface", "version \(Self.version)"),
      DeviceProperty("protocol version", "\(busVersion >> 16).\(busVersion & 0xFFFF)"),
      DeviceProperty("offer flags", "0x" + String(offerFlags.rawValue, radix: 16)),
      DeviceProperty(
        "confidential channels",
        knowsConfidentialChannels ? "known to the kernel" : "not known to it"),
      DeviceProperty("module memory", "\(used) of \(limit) bytes in use"),
      DeviceProperty("leaked pages", leakedPages == 0 ? "none" : "\(leakedPages)"),
    ]
  }
}
