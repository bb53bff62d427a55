// SPDX-License-Identifier: Apache-2.0

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

  // MARK: - Opening

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    guard parameters.userData == UserData() else {
      throw .unusable(reason: "uio_hv_generic can't send the data that this driver opens with")
    }
    let channel = try await life.opening(identity.channel) {
      () async throws(TransportError) -> UIOChannelState in
      // Opening waits for the host, which is nothing for a thread that tasks share.
      let result = await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          continuation.resume(
            returning: Result { () throws(TransportError) in try self.open(worker) })
        }
      }
      return try result.get()
    }
    return channel.raw
  }

  /// Blocks until the host has answered.
  private func open(_ worker: Worker) throws(TransportError) -> UIOChannelState {
    let (node, layout) = try place()
    let file = try Self.openFile(node)
    // Which memory the channel uses is asked at each open: the kernel knows it of an open channel.
    let confidentiality: Confidentiality
    do throws(ConfidentialityUnknown) {
      confidentiality = try machine.confidentiality(of: record.channel).value
    } catch {
      throw .confidentialityUnknown(reason: "\(error.why)")
    }
    let monitor = record.monitor
    guard monitor == nil || !machine.isIsolated else {
      throw .unusable(
        reason:
          "its monitor page is mapped with the wrong encryption, so the host can't be signalled")
    }
    let ring = try mapRing(file, layout, confidentiality)
    let page =
      monitor == nil
      ? nil : try Self.map(node, file.rawValue, UIOLayout.monitorPageMap, MonitorPage.byteCount)
    return try UIOChannelState(
      identity.channel, confidentiality, life, worker,
      UIOChannelState.Parts(ring: ring, monitorPage: page, file: file), monitor: monitor)
  }

  /// The device file and what can be mapped of it. What was true when the device was found may have
  /// changed: it may be another driver's by now.
  private func place() throws(TransportError) -> (node: String, layout: UIOLayout) {
    do {
      guard let now = try VMBusInventory().device(record.instance) else {
        throw TransportError.rescinded
      }
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
