// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing
import VMBus

@testable import VMBusLinux

@Suite struct DeviceMonitorTests {
  static let instance: GUID = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
  static let path = "/devices/LNXSYSTM:00/VMBUS:01/f8b3781a-1e82-4818-a1c3-63d806ec15bb"

  @Test(arguments: [
    ("add", "vmbus", "", DeviceEvent.Kind.added), ("remove", "vmbus", "", .removed),
    ("bind", "vmbus", "", .changed), ("unbind", "vmbus", "", .changed),
    ("change", "vmbus", "", .changed), ("add", "uio", "/uio/uio0", .changed),
    ("remove", "uio", "/uio/uio0", .changed), ("add", "channels", "/channels/31", .changed),
  ])
  func eventsAreAboutTheVMBusDevice(
    _ action: String, _ subsystem: String, _ below: String, _ kind: DeviceEvent.Kind
  ) {
    #expect(
      DeviceEvent(action: action, subsystem: subsystem, devicePath: Self.path + below)
        == DeviceEvent(kind, Self.instance))
  }

  @Test func whatIsNotBelowAVMBusDeviceIsNothing() {
    #expect(
      DeviceEvent(action: "add", subsystem: "uio", devicePath: "/devices/pci0000:00/uio/uio0")
        == nil)
  }

  /// A passed-through function's bus lies below the VMBus device that carries it.
  @Test func theNearestDeviceCounts() {
    let inner: GUID = "eb765408-105f-49b6-b4aa-c123b64d17d4"
    #expect(
      DeviceEvent(action: "add", subsystem: "vmbus", devicePath: "\(Self.path)/x/\(inner)")
        == DeviceEvent(.added, inner))
  }

  /// No VMBus is needed to see that the kernel's events come through: a network interface's are
  /// asked for, and the kernel is told to send one.
  @Test(.enabled(if: UEventFile.loopback.isWritable)) func theKernelsEventsComeThrough() throws {
    var monitor = try UdevMonitor(UdevContext(), source: .kernel, subsystems: ["net"])
    let epoll = try Epoll()
    try epoll.add(monitor.descriptor, token: 1)
    try UEventFile.loopback.send("change")
    let ready = try epoll.wait(milliseconds: 10_000) { _ in }
    #expect(ready == 1)
    var seen: [String] = []
    while let device = try monitor.receive() {
      #expect(device.subsystem == "net")
      if let action = device.action, let path = device.devicePath {
        seen.append("\(action) \(path)")
      }
    }
    #expect(seen.contains("change /devices/virtual/net/lo"))
  }

  @Test(.enabled(if: UEventFile.loopback.isWritable)) func lostEventsAreTold() throws {
    var monitor = try UdevMonitor(UdevContext(), source: .kernel, subsystems: ["net"])
    // Room for a few events, and many more of them.
    try UEventFile.makeReceiveBufferSmall(monitor.descriptor)
    for _ in 0..<64 { try UEventFile.loopback.send("change") }
    var lost = false
    do throws(DiscoveryError) {
      while try monitor.receive() != nil {}
    } catch {
      lost = true
    }
    #expect(lost)
  }

  @Test func aQuietMonitorHasNothing() throws {
    let monitor = try DeviceMonitor(source: .kernel)
    #expect(monitor.descriptor >= 0)
    #expect(!monitor.receive().contains { $0.instance == Self.instance })
  }
}
