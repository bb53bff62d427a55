// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
public import VMBus

/// Tells when VMBus devices come, go and change.
///
/// Watch `descriptor` (`Worker.watch`, epoll) and call `receive` when it is readable. Only what
/// happens after the monitor was made is told: make it first, then take the inventory.
public final class DeviceMonitor: Sendable {
  public let source: UdevEventSource
  /// Readable when `receive` has something. It belongs to the monitor.
  public let descriptor: Int32
  private let monitor: Lock<UdevMonitor>

  // A channel's directory is no device, but the kernel sends events about it too, under the name of
  // the directory above it, and udevd passes them on. A device's own event comes before them.
  private static let subsystems: [WireName] = ["vmbus", "uio", "channels"]

  public init(source: UdevEventSource = .available) throws(DiscoveryError) {
    let monitor = try UdevMonitor(
      UdevContext(), source: source, subsystems: Self.subsystems)
    self.source = source
    descriptor = monitor.descriptor
    self.monitor = Lock(monitor)
  }

  /// What happened since the last call. Never blocks.
  public func receive() -> [DeviceEvent] {
    monitor.withLock { monitor in
      var events: [DeviceEvent] = []
      do throws(DiscoveryError) {
        while let device = try monitor.receive() {
          if let action = device.action, let subsystem = device.subsystem,
            let path = device.devicePath,
            let event = DeviceEvent(action: action, subsystem: subsystem, devicePath: path)
          {
            events.append(event)
          }
        }
      } catch {
        // What was lost is not known. What follows is still there for the next call.
        events.append(DeviceEvent(.changed, nil))
      }
      return events
    }
  }
}

/// Something happened to a VMBus device, or below it.
public struct DeviceEvent: Sendable, Equatable {
  public enum Kind: Sendable {
    case added
    case removed
    /// Bound, unbound, its UIO device or a channel came or went: look at it again. The `ring` file of
    /// a channel may come a little later than the channel, without an event.
    case changed
  }

  public var kind: Kind
  /// Nil when events were lost: look at all devices again.
  public var instance: GUID?

  public init(_ kind: Kind, _ instance: GUID?) {
    self.kind = kind
    self.instance = instance
  }

  /// What a uevent means, or nil when it is not about a VMBus device.
  ///
  /// - Parameter devicePath: below `/sys`. The device may be gone already, so that its path is all
  ///   there is: the VMBus device's own part of it is its instance GUID.
  init?(action: String, subsystem: String, devicePath: String) {
    let parts = devicePath.split(separator: "/")
    guard let instance = parts.lazy.compactMap({ GUID($0) }).last else { return nil }
    kind =
      switch (subsystem, action) {
      case ("vmbus", "add"): .added
      case ("vmbus", "remove"): .removed
      default: .changed
      }
    self.instance = instance
  }
}
