// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Logging
import NetworkProtocol
import PacketIO
import Platform
import ProgramSupport
import SimulatedHost
import Synchronization
import SystemPackage

/// The network devices of the command line, and what is done to them later.
final class NetworkDevices: Sendable {
  let devices: [(vsp: NetVSP, faults: [FaultPlan])]
  private let logger: Logger

  init(_ arguments: [NICArgument], faults: [NICFaultArgument], logger: Logger) throws {
    self.logger = logger
    var hubs: [String: NetworkSwitch] = [:]
    var devices: [(vsp: NetVSP, faults: [FaultPlan])] = []
    for (index, argument) in arguments.enumerated() {
      let backend: any NetworkBackend
      switch argument.kind {
      case .hub(let name):
        let hub = hubs[name] ?? NetworkSwitch()
        hubs[name] = hub
        backend = hub
      case .loopback: backend = LoopbackBackend()
      case .generator(let byteCount):
        guard byteCount <= argument.configuration.mtu + 14 else {
          throw ProgramFailure(.usage, "--nic: frames of \(byteCount) bytes exceed the MTU")
        }
        backend = GeneratorBackend(byteCount: byteCount)
      case .sink: backend = GeneratorBackend.sink
      case .tap(let name): backend = try NetworkDevices.tap(name, argument.configuration)
      case .capture(let path):
        do throws(Errno) {
          backend = CaptureBackend(try FrameCapture(path: path, interface: "nic\(index)"))
        } catch {
          throw ProgramFailure(.cannotCreate, "\(path): \(error)")
        }
      }
      var plans: [FaultPlan] = []
      for fault in faults where fault.device == index {
        if case .channel(let plan) = fault.kind { plans.append(plan) }
      }
      let vsp = NetVSP(
        backend, instance: NICArgument.instance(index),
        address: argument.address ?? NICArgument.address(index),
        configuration: argument.configuration, flags: argument.flags, logger: logger)
      devices.append((vsp, plans))
    }
    self.devices = devices
    for fault in faults { apply(fault.kind, to: fault.device) }
  }

  private static func tap(
    _ name: String, _ configuration: AdapterConfiguration
  ) throws -> TapBackend {
    do throws(TapError) {
      let device = try TapDevice(name: name, queueCount: configuration.maximumQueues)
      try device.setMTU(configuration.mtu)
      return TapBackend(device)
    } catch {
      throw ProgramFailure(.cannotCreate, "\(name): \(error)")
    }
  }

  private func apply(_ kind: NICFaultArgument.Kind, to index: Int) {
    let vsp = devices[index].vsp
    switch kind {
    case .channel: break
    case .link(let isUp): vsp.setLinkUp(isUp)
    case .networkChange: vsp.announceNetworkChange()
    case .buffers(let isExhausted): vsp.setExhausted(isExhausted)
    case .virtualFunction(let serial): vsp.setVirtualFunction(serial)
    case .flips(let flips): vsp.setFlips(flips)
    }
  }

  /// What can be written to the control pipe.
  static let commands = """
    nic NUMBER FAULT (of a network device: \(NICFaultArgument.syntax)), nic NUMBER rescind|offer, \
    nic NUMBER counters FILE (JSON)
    """

  /// One line of the control pipe behind `nic`.
  func execute(_ line: String, _ offers: DeviceOffers) {
    do {
      try executeOrThrow(line, offers)
      logger.info("done: nic \(line)")
    } catch {
      logger.error("nic \(line): \(error)")
    }
  }

  private func executeOrThrow(_ line: String, _ offers: DeviceOffers) throws {
    let words = line.split(separator: " ", maxSplits: 2).map(String.init)
    guard words.count >= 2, let index = Int(words[0]), devices.indices.contains(index) else {
      throw ProgramFailure(.usage, "not the number of a network device and what to do")
    }
    switch words[1] {
    case "rescind": offers.rescind(index)
    case "offer": offers.offer(index)
    case "counters":
      guard words.count == 3 else { throw ProgramFailure(.usage, "no file") }
      try writeCounters(of: index, to: words[2])
    default:
      guard let kind = NICFaultArgument.Kind(words[1]) else {
        throw ProgramFailure(.usage, "there are: \(NICFaultArgument.syntax)")
      }
      if case .channel = kind {
        throw ProgramFailure(.usage, "faults of completions are given with --fault")
      }
      apply(kind, to: index)
    }
  }

  private struct GuestReport: Encodable {
    struct Queue: Encodable {
      let queue: Int
      let counters: [String: UInt64]
    }

    let guest: Int
    let mac: String
    let version: String?
    let dataPath: String
    let linkUp: Bool
    let filter: UInt32
    let errors: UInt64
    let lastErrors: [String]
    let queues: [Queue]
  }

  private func writeCounters(of index: Int, to path: String) throws {
    let reports = devices[index].vsp.records.sorted { $0.key < $1.key }.map { guest, record in
      GuestReport(
        guest: guest, mac: "\(record.address)", version: record.version?.description,
        dataPath: record.dataPath == .synthetic ? "synthetic" : "vf", linkUp: record.isLinkUp,
        filter: record.filter.rawValue, errors: record.errorCount,
        lastErrors: record.errors.map { "\($0)" },
        queues: record.queues.map { queue in
          .init(queue: queue.index, counters: NetworkDevices.dictionary(queue))
        })
    }
    // Whole or not at all, for those who wait for the file.
    try Data(jsonText(reports).utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
  }

  private static func dictionary(_ queue: NetworkGuestRecord.Queue) -> [String: UInt64] {
    let counters = queue.counters
    return [
      "framesFromGuest": counters.framesFromGuest, "bytesFromGuest": counters.bytesFromGuest,
      "framesToGuest": counters.framesToGuest, "bytesToGuest": counters.bytesToGuest,
      "largeFromGuest": counters.largeFromGuest, "largeToGuest": counters.largeToGuest,
      "hugeFromGuest": counters.hugeFromGuest, "hugeToGuest": counters.hugeToGuest,
      "errorsFromGuest": counters.errorsFromGuest, "filtered": counters.filtered,
      "outOfBuffers": counters.outOfBuffers,
      "unknownCompletions": counters.unknownCompletions,
      "buffersWithGuest": counters.buffersWithGuest, "overflows": queue.overflows,
    ]
  }
}
