// SPDX-License-Identifier: Apache-2.0

import CLinux
import Dispatch
import Platform
import Synchronization
import SystemPackage
import VMBus
import VMBusLinux
import VSC

/// This process as the opener of a device. What it has of the module ends with it, whatever its end: then
/// channels are closed, GPADLs torn down, and memory is scrubbed and freed, in that order.
final class KernelSession: Sendable {
  let file: KernelFile
  let facts: ModuleFacts
  let status: ModuleStatusPage
  private let node: String
  private let life: DeviceLife
  private let events = Lock<ModuleEvents?>(nil)

  private struct Channels {
    var open: Set<UInt16> = []
    /// The primary channel waits for the subchannels: they end with it.
    var closesPrimary: (@Sendable () -> Void)?
    /// Memory with a GPADL, by its offset. It is freed when the primary channel is closed.
    var shared: [Int] = []
  }

  private let channels = Lock(Channels())

  /// Opens the node. Blocks for some seconds while what a killed process had is being cleaned up.
  init(node: String, _ life: DeviceLife) throws(TransportError) {
    self.node = node
    self.life = life
    let file = try Self.open(node)
    do throws(Errno) {
      try file.file.lock()
    } catch {
      throw .inUse(path: node)
    }
    let said: Result<ModuleFacts, ModuleFactsError>
    let status: ModuleStatusPage
    do throws(Errno) {
      said = try ModuleProbe.facts(file)
      status = try ModuleStatusPage(of: file)
    } catch {
      throw Self.failure(error, node)
    }
    switch said {
    case .success(let facts): self.facts = facts
    case .failure(let error): throw .unusable(reason: "\(error)")
    }
    self.file = file
    self.status = status
  }

  private static func open(_ node: String) throws(TransportError) -> KernelFile {
    for _ in 0..<50 {
      do throws(Errno) {
        return try KernelFile(path: node)
      } catch .resourceBusy {
        // Who has a lock drives it. Without one, it is somebody who looks, or one whose end is not over.
        if let facts = try? NodeFacts(ofNode: node), facts.lockedBy != nil { break }
        vmbus_sleep_milliseconds(100)
      } catch {
        throw failure(error, node)
      }
    }
    throw .inUse(path: node)
  }

  // MARK: - Events

  /// From now on the device ends when the module says so.
  func watch() throws(TransportError) {
    do throws(Errno) {
      let event = try EventDescriptor()
      try file.setDeviceEvent(event)
      let events = ModuleEvents(event) { [weak self] in self?.look() }
      self.events.withLock { $0 = events }
    } catch {
      throw failure(error)
    }
  }

  /// Ends the device if it is gone. May wait for a call of another thread.
  func look() {
    do throws(Errno) {
      _ = try file.info()
    } catch .operationNotSupportedByDevice {
      life.end(.rescinded)
    } catch {
      // A device that is there answers.
    }
  }

  // MARK: - Channels

  /// Opens a channel with the host, and maps its ring: outgoing, then incoming.
  ///
  /// - Parameter ringByteCount: of each of the two rings.
  func open(
    _ number: UInt16, ringByteCount: Int, event: borrowing EventDescriptor, _ userData: UserData
  ) throws(TransportError) -> MappedMemory {
    let page = SystemPage.byteCount
    let count = (max(ringByteCount, 2 * page) + page - 1) / page * page
    guard count <= facts.ringLimit / 2 else {
      throw .unusable(
        reason:
          "two rings of \(count) bytes are asked for, and the module makes \(facts.ringLimit) bytes at most"
      )
    }
    do throws(Errno) {
      let offset = try file.open(number, ringByteCount: count, event: event, userData)
      do throws(Errno) {
        let ring = try MappedMemory(file.rawValue, offset: offset, byteCount: 2 * count)
        channels.withLock { _ = $0.open.insert(number) }
        return ring
      } catch {
        try? file.close(number)
        throw error
      }
    } catch .ioError {
      throw .unusable(reason: "\(node): the host refused to open the channel (see dmesg)")
    } catch .resourceBusy {
      throw .alreadyOpen
    } catch {
      throw failure(error)
    }
  }

  /// Closes a channel whose ring nobody uses any more; waits for the host.
  ///
  /// - Parameter closed: called when it is closed: the primary one is that after its subchannels.
  func close(_ number: UInt16, closed: @escaping @Sendable () -> Void) {
    guard number == 0 else {
      // The device may be gone, and all of it closed.
      try? file.close(number)
      closed()
      channelHasClosed(number)
      return
    }
    channels.withLock { $0.closesPrimary = closed }
    closePrimaryIfAlone()
  }

  private func channelHasClosed(_ number: UInt16) {
    channels.withLock { _ = $0.open.remove(number) }
    closePrimaryIfAlone()
  }

  private func closePrimaryIfAlone() {
    let (closed, shared) = channels.withLock { channels in
      guard channels.open == [0], let closed = channels.closesPrimary else {
        return (closed: (@Sendable () -> Void)?.none, shared: [Int]())
      }
      let shared = channels.shared
      channels = Channels()
      return (closed, shared)
    }
    guard let closed else { return }
    try? file.close(0)
    // The host has let go of the channel, and nobody sends there what it would write.
    for offset in shared { try? file.free(offset) }
    closed()
  }

  /// Notes memory with a GPADL.
  ///
  /// - Returns: false when there is no channel any more that it could be for.
  func keepShared(_ offset: Int) -> Bool {
    channels.withLock { channels in
      guard channels.open.contains(0), channels.closesPrimary == nil else { return false }
      channels.shared.append(offset)
      return true
    }
  }

  // MARK: - Errors

  func failure(_ error: Errno) -> TransportError { Self.failure(error, node) }

  private static func failure(_ error: Errno, _ node: String) -> TransportError {
    switch error {
    case .operationNotSupportedByDevice, .noSuchFileOrDirectory, .noSuchAddressOrDevice: .rescinded
    case .permissionDenied:
      .notPermitted(path: node, need: "run as its owner, or give it to a group by a udev rule")
    default: .system("device file", code: error.rawValue, text: "\(node): \(error)")
    }
  }
}

/// Calls somebody for each event of a device, until it goes.
private final class ModuleEvents: @unchecked Sendable {
  private final class Box: Sendable {
    let event: EventDescriptor
    init(_ event: consuming EventDescriptor) { self.event = event }
  }

  // Made here, ended here; Dispatch's objects may be used from any thread.
  private let source: any DispatchSourceRead

  init(_ event: consuming EventDescriptor, _ happened: @escaping @Sendable () -> Void) {
    let box = Box(event)
    source = DispatchSource.makeReadSource(fileDescriptor: box.event.rawValue)
    source.setEventHandler {
      box.event.drain()
      happened()
    }
    // The descriptor stays open until nobody looks at it.
    source.setCancelHandler { box.event.drain() }
    source.activate()
  }

  deinit { source.cancel() }
}
