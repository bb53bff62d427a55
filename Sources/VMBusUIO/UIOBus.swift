// SPDX-License-Identifier: Apache-2.0

import Dispatch
public import VMBus
public import VSC

/// The VMBus of this machine, as far as Linux gives it to user space: devices that are bound to
/// uio_hv_generic can be used, and of all others it can be told why not.
public final class UIOBus: DeviceBus {
  public struct Configuration: Sendable {
    /// The operator's word on which memory channels use, where the machine itself does not tell.
    public var confidentiality: Confidentiality?

    public init() {}
  }

  private let machine: UIOMachine

  /// Opens what needs privileges: call it before they are dropped.
  public init(_ configuration: Configuration = Configuration()) {
    machine = UIOMachine(configuration)
  }

  public var name: String { "this machine" }

  public var bringsBack: Bool { true }

  public var devices: [any DeviceTransport] {
    get throws(TransportError) {
      try inventory().devices.map { UIODevice($0, on: machine) }
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
      if let record = try inventory().device(instance) {
        let device = UIODevice(record, on: machine)
        if device.obstacle == nil { return device }
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
