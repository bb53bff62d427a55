// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import HostPrograms
import Logging
import NetworkProtocol
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
    let vsps = try NICArgument.devices(arguments, of: .host, logger: logger)
    devices = vsps.enumerated().map { index, vsp in
      let plans = faults.compactMap { fault -> FaultPlan? in
        guard fault.device == index, case .channel(let plan) = fault.kind else { return nil }
        return plan
      }
      return (vsp, plans)
    }
    for fault in faults { apply(fault.kind, to: fault.device) }
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
