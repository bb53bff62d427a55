// SPDX-License-Identifier: Apache-2.0

import Dispatch
public import VMBus
public import VSC

/// The VMBus of this machine, as far as Linux gives it to user space: a device can be used that is bound to
/// one of several drivers of the kernel's, and of all others it can be told why not.
public final class LinuxBus: DeviceBus {
  private let machine: LinuxMachine
  private let drivers: [any UserSpaceDriver]

  /// - Parameters:
  ///   - drivers: the best one first, the one that every kernel has last.
  ///   - said: the operator's word on which memory channels use, where the machine itself does not tell.
  public init(_ drivers: [any UserSpaceDriver], said: Confidentiality? = nil) {
    self.drivers = drivers
    machine = LinuxMachine(said: said)
  }

  public var name: String { "this machine" }

  public var bringsBack: Bool { true }

  public var devices: [any DeviceTransport] {
    get throws(TransportError) {
      try inventory().devices.compactMap { transport(to: $0) }
    }
  }

  public var whyNoDevices: String? { (try? inventory())?.whyNothing?.description }

  public var complaints: [String] {
    do throws(TransportError) {
      return try inventory().unreadable.map(\.description)
    } catch {
      return [error.description]
    }
  }

  private func transport(to device: VMBusDeviceRecord) -> (any DeviceTransport)? {
    // Without sysfs there are no devices, and so none that is for the wrong driver.
    let loaded = (try? KernelFacts.running())?.drivers ?? []
    return device.driver(among: drivers.map(\.name), loaded: loaded)
      .map { drivers[$0].transport(to: device, on: machine) }
  }

  private func inventory() throws(TransportError) -> VMBusInventory {
    do throws(DiscoveryError) {
      return try VMBusInventory()
    } catch {
      throw .unusable(reason: "\(error)")
    }
  }

  /// A device that was rescinded comes back when its host offers it anew, with another relid, and
  /// somebody (a udev rule) binds it.
  public func comesBack(_ instance: GUID) async throws(TransportError) -> (any DeviceTransport)? {
    let events = try deviceEvents()
    // No event tells that another driver has let go of the device: look now and then, too.
    repeat {
      if let record = try inventory().device(instance), let device = transport(to: record),
        device.obstacle == nil
      {
        return device
      }
      // Whoever waits for one device need not read what happened to which.
    } while await events.next() && !Task.isCancelled
    return nil
  }

  private func deviceEvents() throws(TransportError) -> DeviceEvents {
    do throws(DiscoveryError) {
      return DeviceEvents(try DeviceMonitor())
    } catch {
      throw .unusable(reason: "\(error)")
    }
  }
}

/// Waits for events of a monitor.
private final class DeviceEvents: @unchecked Sendable {
  private let ticks: AsyncStream<Void>
  // Made here, ended here; Dispatch's objects may be used from any thread.
  private let source: any DispatchSourceRead
  private let timer: any DispatchSourceTimer

  init(_ monitor: DeviceMonitor) {
    let (ticks, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    self.ticks = ticks
    source = DispatchSource.makeReadSource(fileDescriptor: monitor.descriptor)
    source.setEventHandler {
      if !monitor.receive().isEmpty { continuation.yield() }
    }
    timer = DispatchSource.makeTimerSource()
    timer.setEventHandler { continuation.yield() }
    timer.schedule(deadline: .now() + 1, repeating: 1)
    source.activate()
    timer.activate()
  }

  deinit {
    source.cancel()
    timer.cancel()
  }

  /// Returns after the next event or a second, or false when the task is cancelled.
  func next() async -> Bool {
    for await _ in ticks { return true }
    return false
  }
}
