// SPDX-License-Identifier: Apache-2.0

import CLinux
import Dispatch
import Platform
import SystemPackage
import VMBus
import VSC

/// A VMBus device of this machine, in the hands of the kernel's driver uio_hv_generic.
///
/// UIO has no control plane: opening the device file opens the primary channel with rings that the
/// kernel made, and closing it closes the channel.
final class UIODevice: DeviceTransport {
  let record: VMBusDeviceRecord
  let identity: DeviceIdentity
  let machine: UIOMachine
  private let life = DeviceLife()

  init(_ record: VMBusDeviceRecord, on machine: UIOMachine) {
    self.record = record
    self.machine = machine
    identity = DeviceIdentity(
      deviceClass: record.deviceClass, instance: record.instance, channel: record.channel,
      confidentiality: try? machine.confidentiality(of: record.channel).value,
      transport: record.nodes.first?.node ?? "VMBus")
  }

  /// Linux gives user space no other signal for such a channel.
  private static let noDoorbell =
    "its monitor page is mapped with the wrong encryption, so the host can't be signalled"
  private static let noUserData =
    "uio_hv_generic can't send the data that this driver opens its channel with"

  // MARK: - Opening

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

  /// Blocks until the host has answered.
  private func open(_ worker: Worker) throws(TransportError) -> UIOChannelState {
    let (node, layout) = try place()
    let file = try Self.openFile(node)
    let confidentiality = try confidentiality(of: record.channel)
    let monitor = record.monitor
    guard monitor == nil || !machine.isIsolated else { throw .unusable(reason: Self.noDoorbell) }
    let ring = try mapRing(file, layout, confidentiality)
    let page = try mapMonitorPage(file, monitor)
    return try UIOChannelState(
      identity.channel, confidentiality, life, worker,
      UIOChannelState.Parts(ring: ring, monitorPage: page, file: file), monitor: monitor)
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

  /// The device file and what can be mapped of it. What was true when the device was found may have
  /// changed: it may be another driver's by now.
  private func place() throws(TransportError) -> (node: String, layout: UIOLayout) {
    do {
      var current = try VMBusInventory().device(record.instance)
      // A driver that has just ended, killed perhaps, gives up its lock before the kernel has closed
      // the channel for it.
      for _ in 0..<30 where try current?.isClosing == true {
        vmbus_sleep_milliseconds(100)
        current = try VMBusInventory().device(record.instance)
      }
      guard let now = current else { throw TransportError.rescinded }
      if let obstacle = UIODevice(now, on: machine).obstacle {
        throw TransportError.unusable(reason: "\(obstacle)")
      }
      guard let node = now.nodes.first else { throw TransportError.rescinded }
      return (node.node, try UIOLayout(node.maps))
    } catch let error as TransportError {
      throw error
    } catch {
      throw .unusable(reason: "\(error)")
    }
  }

  /// Opens the device file, which opens the channel, for this process alone.
  private static func openFile(_ node: String) throws(TransportError) -> DeviceFile {
    let file: DeviceFile
    do throws(Errno) {
      file = try DeviceFile(path: node)
    } catch .permissionDenied {
      throw .notPermitted(
        path: node, need: "run as its owner, or give it to a group by a udev rule")
    } catch .resourceTemporarilyUnavailable, .diskQuotaExceeded {
      // EAGAIN for the open message, EDQUOT for the ring's GPADL; the kernel keeps the status.
      throw .unusable(reason: "\(node): the host refused to open the channel (see dmesg)")
    } catch .invalidArgument {
      throw .unusable(reason: "\(node): the kernel has the channel open already")
    } catch .operationNotSupportedByDevice, .noSuchFileOrDirectory, .noSuchAddressOrDevice {
      throw .rescinded
    } catch {
      throw .system("device file", code: error.rawValue, text: "\(node): \(error)")
    }
    do throws(Errno) {
      try file.lock()
    } catch {
      throw .inUse(path: node)
    }
    return file
  }

  // MARK: - Mapping

  /// The rings. In an isolated machine, `/dev/uioN` maps host-visible memory as if it were encrypted,
  /// and the sysfs file maps encrypted memory as if it were host-visible: a packet through the wrong
  /// one never arrives, or worse. Where both are right, the sysfs file is better: the kernel takes its
  /// mapping away when the device goes.
  private func mapRing(
    _ file: borrowing DeviceFile, _ layout: UIOLayout, _ confidentiality: Confidentiality
  ) throws(TransportError) -> MappedMemory {
    let byteCount = 2 * layout.ringByteCount
    let node = identity.transport
    guard confidentiality == .hostVisible else {
      return try Self.map(node, file.rawValue, UIOLayout.ringMap, byteCount)
    }
    let path = record.channels.first { $0.channel == record.channel }?.ringFile
    do throws(TransportError) {
      guard let path else {
        throw .unusable(reason: "this kernel has no ring file for the channel")
      }
      return try Self.mapFile(path, byteCount)
    } catch {
      // Old kernels have no such file for a primary channel.
      guard !machine.isIsolated else { throw error }
      return try Self.map(node, file.rawValue, UIOLayout.ringMap, byteCount)
    }
  }

  private func mapMonitorPage(
    _ file: borrowing DeviceFile, _ monitor: MonitorID?
  ) throws(TransportError) -> MappedMemory? {
    guard monitor != nil else { return nil }
    return try Self.map(
      identity.transport, file.rawValue, UIOLayout.monitorPageMap, MonitorPage.byteCount)
  }

  /// Map N of a UIO device lies at N pages.
  private static func map(
    _ node: String, _ descriptor: Int32, _ index: Int, _ byteCount: Int
  ) throws(TransportError) -> MappedMemory {
    do throws(Errno) {
      return try MappedMemory(
        descriptor, offset: index * SystemPage.byteCount, byteCount: byteCount)
    } catch {
      throw .system(
        "map of a device", code: error.rawValue, text: "\(node), map \(index): \(error)")
    }
  }

  private static func mapFile(
    _ path: String, _ byteCount: Int
  ) throws(TransportError) -> MappedMemory {
    do {
      let file = unsafe OwnedDescriptor(
        owning: try FileDescriptor.open(path, .readWrite, options: .closeOnExec).rawValue)
      return try MappedMemory(file.rawValue, byteCount: byteCount)
    } catch {
      let code = (error as? Errno)?.rawValue ?? 0
      throw .system("ring file", code: code, text: "\(path): \(error)")
    }
  }

  // MARK: - Subchannels

  /// Waits until the kernel has opened a subchannel: its ring file is there then. No event tells of
  /// that which udevd would be sure to pass on.
  private func subchannel(_ index: UInt16) async throws(TransportError) -> ChannelRecord {
    for _ in 0..<200 {
      if let end = life.reason { throw end == .rescinded ? .rescinded : .hostGone }
      let found = (try? VMBusInventory())?.device(record.instance)?.channels.first {
        $0.subchannelIndex == index && $0.ringFileByteCount != nil
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
      throw .unusable(reason: Self.noDoorbell)
    }
    guard let byteCount = subchannel.ringFileByteCount, byteCount % 8192 == 0,
      byteCount >= 4 * 4096, byteCount <= 1 << 30
    else { throw .unusable(reason: "\(subchannel.ringFile) has no size that two rings can have") }
    // A descriptor of its own, for its worker; the primary channel's has the lock.
    let file: DeviceFile
    do throws(Errno) {
      file = try DeviceFile(path: identity.transport)
    } catch {
      throw .system("device file", code: error.rawValue, text: "\(identity.transport): \(error)")
    }
    let ring = try Self.mapFile(subchannel.ringFile, Int(byteCount))
    let page = try mapMonitorPage(file, subchannel.monitor)
    return try UIOChannelState(
      subchannel.channel, confidentiality, life, worker,
      UIOChannelState.Parts(ring: ring, monitorPage: page, file: file), monitor: subchannel.monitor)
  }

  // MARK: - Memory and the end

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = try machine.allocate(memory, byteCount: byteCount)
    life.keep(pages)
    return pages.pages(isScrubbed: false)
  }

  func ended() async -> ChannelEnd { await life.ended() }

  func close() async {
    // The channels are closed, and with them whatever the host might have done with the memory.
    _ = await life.close()
  }
}
