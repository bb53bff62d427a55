// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CLinux
import DriverProgram
import Logging
import NetworkProtocol
import NetworkVSC
import PacketIO
import Platform
import Synchronization
import SystemPackage
import VSC

struct TapCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tap",
    abstract: "Joins the device to the network stack of this system, as a network interface.",
    discussion: """
      The interface has the device's address and MTU, is up, and has a carrier while the device's \
      link is up. Checksums and large sends pass through in both directions. It ends on SIGINT or \
      SIGTERM, and the interface with it, unless that was there before ('ip tuntap add NAME mode tap \
      multi_queue vnet_hdr', which a program without privileges can use).
      """)

  @OptionGroup var options: NetworkOptions

  @Option(help: ArgumentHelp("The interface's name: 15 bytes at most.", valueName: "name"))
  var name: String

  @Option(
    help: ArgumentHelp(
      "Tell at this socket what the device does: ask with 'vsc-network info --stats'.",
      valueName: "path"))
  var stats: String?

  @Option(
    help: ArgumentHelp(
      "Capture all frames to this file (pcapng), checksums filled in.", valueName: "file"))
  var pcap: String?

  @Flag(help: "When a simulated host goes away, wait for it to come back, and keep the interface.")
  var reconnect = false

  func run() async throws {
    try Termination.handle()
    do {
      try await join()
    } catch {
      throw ProgramFailure.wrapping(error)
    }
  }

  private func join() async throws {
    // First: a name that can't be had is known before the host is troubled.
    let tap = try TapDevice(name: name)
    try tap.setCarrier(false)
    var capture: FrameCapture?
    if let pcap {
      do throws(Errno) {
        capture = try FrameCapture(path: pcap, interface: name)
      } catch {
        throw ProgramFailure(.cannotCreate, "\(pcap): \(error)")
      }
    }
    let joined = TapJoin(tap, TapShared(mtu: options.mtu, capture: capture), options)
    var socket: StatisticsSocket?
    if let stats { socket = try StatisticsSocket(path: stats) { await joined.text() } }
    let flushing = Task { await Self.flush(capture) }
    let result: Result<Void, any Error>
    do {
      try await drive(joined)
      result = .success(())
    } catch {
      result = .failure(error)
    }
    flushing.cancel()
    await flushing.value
    socket?.close()
    try result.get()
    if let failure = joined.shared.failure {
      throw ProgramFailure(.cannotCreate, "\(pcap ?? ""): \(failure)")
    }
  }

  /// Drives the device as often as it comes; with a simulated host, as often as the host comes.
  private func drive(_ joined: TapJoin) async throws {
    var told = 0
    while true {
      do {
        try await whileOffered(
          .network, options.driver, label: "network", workers: options.queues
        ) { try await joined.drive($0) }
        return
      } catch let failure as ProgramFailure where reconnect && joined.timesReady > 0 {
        guard failure.code == .unavailable, options.driver.host != nil else { throw failure }
        if told < joined.timesReady { joined.say("\(failure): waiting for it to come back") }
        told = joined.timesReady
        let waited: Void? = try await untilTermination { try await Task.sleep(for: .seconds(1)) }
        if waited == nil { return }
      }
    }
  }

  /// A capture is readable while it grows.
  private static func flush(_ capture: FrameCapture?) async {
    while !Task.isCancelled {
      try? await Task.sleep(for: .milliseconds(500))
      try? capture?.flush()
    }
    try? capture?.flush()
  }
}

/// The interface, over the lives of its device.
final class TapJoin: Sendable {
  let tap: TapDevice
  let shared: TapShared
  private let options: NetworkOptions
  private let life = Lock(Life())

  private struct Life {
    var interface: NetworkInterface?
    var user: TapUser?
    var timesReady = 0
  }

  init(_ tap: TapDevice, _ shared: TapShared, _ options: NetworkOptions) {
    self.tap = tap
    self.shared = shared
    self.options = options
  }

  /// How often a device has been joined.
  var timesReady: Int { life.withLock { $0.timesReady } }

  /// Returns why the device is gone, or nil when the program is told to end.
  func drive(_ device: Device) async throws -> ChannelEnd? {
    let user = TapUser(tap, shared)
    defer {
      life.withLock { life in
        life.interface = nil
        life.user = nil
      }
      try? tap.setCarrier(false)
    }
    let error = try await untilTermination {
      let interface: NetworkInterface
      do throws(NetworkError) {
        interface = try await self.open(device, user)
      } catch {
        return error
      }
      try self.configure(interface.information)
      self.life.withLock { life in
        life.interface = interface
        life.user = user
        life.timesReady += 1
      }
      self.announce(interface.information)
      return await interface.waitUntilEnded()
    }
    if let failure = user.failure { throw failure }
    guard let error else { return nil }
    guard let end = channelEnd(error) else { throw error }
    return end
  }

  private func open(
    _ device: Device, _ user: TapUser
  ) async throws(NetworkError) -> NetworkInterface {
    do {
      return try await NetworkVSC.open(
        device, options.configuration, user: user, events: { self.handle($0) })
    } catch let error as NetworkError {
      throw error
    } catch let error as TransportError {
      throw .transport(error)
    } catch {
      throw .cancelled
    }
  }

  /// Makes the interface what the device is.
  private func configure(_ information: NetworkInformation) throws(TapError) {
    tap.removeQueues(to: information.queueCount)
    try setOffloads(information.offloads)
    try tap.setMTU(min(information.mtu, options.mtu))
    try tap.setAddress(information.macAddress)
    try tap.setUp(true)
    try tap.setCarrier(information.isLinkUp)
  }

  /// The stack leaves to the host what that does.
  private func setOffloads(_ can: NetworkOffloads) throws(TapError) {
    var offloads: TapDevice.Offloads = []
    if can.ipv4Transmit.contains(.tcp), can.ipv6Transmit.contains(.tcp) {
      offloads.insert(.checksum)
      if can.ipv4LargeSend > 0 { offloads.insert(.tcpIPv4) }
      if can.ipv6LargeSend > 0 { offloads.insert(.tcpIPv6) }
    }
    try tap.setOffloads(offloads)
    let largest = [can.ipv4LargeSend, can.ipv6LargeSend].filter { $0 > 0 }.min()
    // The device counts the Ethernet header too, and a tag may come with it.
    if let largest { try tap.setLargestSend(max(largest - 18, 1500)) }
  }

  private func handle(_ event: NetworkEvent) {
    switch event {
    case .linkUp: try? tap.setCarrier(true)
    case .linkDown, .ended: try? tap.setCarrier(false)
    case .offloadsChanged:
      if let interface = life.withLock({ $0.interface }) {
        try? setOffloads(interface.information.offloads)
      }
    default: break
    }
    if case .ended = event { return }
    if timesReady > 0, let text = eventText(event) { say("\(tap.name): \(text)") }
  }

  private func announce(_ information: NetworkInformation) {
    let count = information.queueCount
    let line =
      "\(tap.name): \(information.macAddress), MTU \(min(information.mtu, options.mtu)), "
      + "\(count) queue\(count == 1 ? "" : "s"), link \(information.isLinkUp ? "up" : "down")"
    say(line)
    ServiceManager.own?.tell(.ready, .status(line))
  }

  /// One line on standard output, unbuffered: another program may wait for it.
  func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = unsafe write(1, bytes, bytes.count)
  }

  /// What the device does, as JSON; empty while there is none.
  func text() async -> String {
    let (interface, user) = life.withLock { ($0.interface, $0.user) }
    guard let interface, let user else { return "" }
    var report = InterfaceReport(interface.information, await interface.statistics())
    report.interface = tap.name
    for (index, part) in await user.reports().enumerated()
    where report.queues.indices.contains(index) {
      report.queues[index].tap = part
    }
    return (try? jsonText(report)) ?? ""
  }
}
