// SPDX-License-Identifier: Apache-2.0

import CLinux
import Dispatch
import Platform
import Synchronization
import SystemPackage
import VMBus
import VMBusLinux
import VSC

/// A VMBus device of this machine, in the hands of the kernel's driver uio_hv_generic.
///
/// UIO has no control plane: opening the device file opens the primary channel with rings that the
/// kernel made, and closing it closes the channel.
final class UIODevice: DeviceTransport {
  let record: VMBusDeviceRecord
  let identity: DeviceIdentity
  let machine: LinuxMachine
  private let driver: UIODriver
  private let life = DeviceLife()
  /// The device file that the primary channel was opened by.
  private let openNode = Lock<String?>(nil)

  init(_ record: VMBusDeviceRecord, on machine: LinuxMachine, _ driver: UIODriver) {
    self.record = record
    self.driver = driver
    self.machine = machine
    identity = DeviceIdentity(
      deviceClass: record.deviceClass, instance: record.instance, channel: record.channel,
      confidentiality: try? machine.confidentiality(of: record.channel).value,
      transport: record.nodes.first?.node ?? "VMBus")
  }

  private static let noUserData =
    "uio_hv_generic can't send the data that this driver opens its channel with"

  // MARK: - Opening

  /// Without a monitor the host is signalled by a write to the node, for which the kernel goes through all
  /// subchannels, whether they are open yet or not: with Linux 6.12.117 one that comes at that moment is a
  /// null pointer in the kernel, which dies with the lock of the whole bus. So the host is asked for none.
  var whyNoSubchannels: String? {
    record.monitor != nil
      ? nil
      : "the host is signalled by hypercall, and while a subchannel comes Linux does not survive that"
  }

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    guard parameters.userData == UserData() else { throw .unusable(reason: Self.noUserData) }
    return try await opening(identity.channel) { () throws(TransportError) in
      try self.open(worker)
    }
  }

  /// The kernel opens a subchannel as soon as the host offers it; what is left is to find it.
  func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    guard parameters.userData == UserData() else { throw .unusable(reason: Self.noUserData) }
    guard whyNoSubchannels == nil else { throw .noSubchannels }
    let subchannel = try await subchannel(index)
    return try await opening(subchannel.channel) { () throws(TransportError) in
      try self.open(subchannel, worker)
    }
  }

  /// Opening waits for the host, which is nothing for a thread that tasks share.
  private func opening(
    _ id: ChannelID, _ open: @escaping @Sendable () throws(TransportError) -> UIOChannelState
  ) async throws(TransportError) -> RawChannel {
    let channel = try await life.opening(id) {
      () async throws(TransportError) -> UIOChannelState in
      let result = await withCheckedContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(returning: Result(catching: open)) }
      }
      return try result.get()
    }
    return channel.raw
  }

  /// Blocks until the host has answered. All that can be refused is refused before it is asked.
  private func open(_ worker: Worker) throws(TransportError) -> UIOChannelState {
    let (now, node, layout) = try place()
    let confidentiality = try confidentiality(of: now.channel)
    let file = try UIOFile.openAndLock(node)
    openNode.withLock { $0 = node }
    let ring = try UIOFile.mapRing(
      file, node, ringFile: now.ringFile, 2 * layout.ringByteCount, confidentiality,
      isIsolated: machine.isIsolated)
    let page = try UIOFile.mapMonitorPage(file, node, now.monitor)
    return try UIOChannelState(
      now.channel, confidentiality, life, worker,
      UIOChannelState.Parts(ring: ring, monitorPage: page, file: file), monitor: now.monitor)
  }

  /// Which memory a channel uses, asked anew at each open.
  private func confidentiality(
    of channel: ChannelID
  ) throws(TransportError) -> Confidentiality {
    do throws(ConfidentialityUnknown) {
      return try machine.confidentiality(of: channel).value
    } catch {
      throw .confidentialityUnknown(reason: "\(error.why)")
    }
  }

  /// The device as it is now, its file and what can be mapped of it. What was true when the device was
  /// found may have changed: it may be another driver's by now, or another offer of the same device.
  private func place() throws(TransportError) -> (
    now: VMBusDeviceRecord, node: String, layout: UIOLayout
  ) {
    do {
      var current = try VMBusInventory().device(record.instance)
      // A driver that has just ended, killed perhaps, gives up its lock before the kernel has closed
      // the channel for it.
      for _ in 0..<30 where try current?.isClosing == true {
        vmbus_sleep_milliseconds(100)
        current = try VMBusInventory().device(record.instance)
      }
      guard let now = current, now.channel == record.channel else {
        throw TransportError.rescinded
      }
      if let obstacle = UIODevice(now, on: machine, driver).obstacle {
        throw TransportError.unusable(reason: "\(obstacle)")
      }
      guard let node = now.nodes.first else { throw TransportError.rescinded }
      return (now, node.node, try UIOLayout(node.maps))
    } catch let error as TransportError {
      throw error
    } catch {
      throw .unusable(reason: "\(error)")
    }
  }

  // MARK: - Subchannels

  /// Waits until the kernel has opened a subchannel: its ring can be mapped then. No event tells of
  /// that which udevd would be sure to pass on.
  private func subchannel(_ index: UInt16) async throws(TransportError) -> ChannelRecord {
    for _ in 0..<200 {
      if let end = life.reason { throw end == .rescinded ? .rescinded : .hostGone }
      let found = (try? record.currentChannels())?.first {
        // One that is left from before cannot be mapped.
        $0.subchannelIndex == index && $0.ringFileByteCount != nil
          && UIOFile.canBeMapped($0.ringFile)
      }
      if let found { return found }
      do { try await Task.sleep(for: .milliseconds(50)) } catch { break }
    }
    throw .timedOut("subchannel offer")
  }

  private func open(
    _ subchannel: ChannelRecord, _ worker: Worker
  ) throws(TransportError) -> UIOChannelState {
    let confidentiality = try confidentiality(of: subchannel.channel)
    guard confidentiality == .hostVisible else {
      throw .unusable(
        reason: "its ring is encrypted, and the kernel maps a subchannel's as host-visible only")
    }
    guard subchannel.monitor == nil || !machine.isIsolated else {
      throw .unusable(reason: UIODriver.noDoorbell)
    }
    guard let byteCount = subchannel.ringFileByteCount, byteCount % 8192 == 0,
      byteCount >= 4 * 4096, byteCount <= 1 << 30
    else { throw .unusable(reason: "\(subchannel.ringFile) has no size that two rings can have") }
    guard let node = openNode.withLock({ $0 }) else { throw .noSubchannels }
    // A descriptor of its own, for its worker; the primary channel's has the lock.
    let file = try UIOFile.open(node)
    let ring = try UIOFile.mapFile(subchannel.ringFile, Int(byteCount))
    let page = try UIOFile.mapMonitorPage(file, node, subchannel.monitor)
    return try UIOChannelState(
      subchannel.channel, confidentiality, life, worker,
      UIOChannelState.Parts(ring: ring, monitorPage: page, file: file),
      monitor: subchannel.monitor, isPrimary: false)
  }

  // MARK: - Memory and the end

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = try driver.allocate(memory, byteCount: byteCount, on: machine)
    life.keep(pages)
    return pages.pages(isScrubbed: false)
  }

  /// The kernel made both buffers with their GPADLs when it took the device, and keeps them as long as it
  /// has it.
  func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages {
    guard !machine.isIsolated else {
      throw .unusable(
        reason: "the kernel maps a network device's buffers with the wrong encryption")
    }
    guard let node = openNode.withLock({ $0 }),
      let found = try? VMBusInventory().device(record.instance), let nodeFacts = found.nodes.first,
      let layout = try? UIOLayout(nodeFacts.maps)
    else { throw .rescinded }
    guard let buffer = use == .receive ? layout.receiveBuffer : layout.sendBuffer else {
      throw .noSharedMemory(use)
    }
    let file = try UIOFile.open(node)
    let mapping = UIOSharedMemory(
      try UIOFile.map(file, node, buffer.map, buffer.byteCount))
    life.keep(mapping)
    return mapping.pages(buffer.gpadl)
  }

  var endReason: ChannelEnd? { life.reason }

  func ended() async -> ChannelEnd { await life.ended() }

  func close() async {
    let memory = await life.close()
    // Closed channels are known to be quiet. But one that was unbound in use the kernel never closes:
    // the host may write to that memory for as long as this machine runs.
    if life.reason == .rescinded, isStillOffered { UIODriver.keepForEver(memory) }
  }

  private var isStillOffered: Bool {
    guard let inventory = try? VMBusInventory() else { return true }
    return inventory.device(record.instance)?.channel == record.channel
  }
}
