// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import ProgramSupport
import SimulatedHost
import StorageProtocol
import Synchronization
import VMBus

/// The storage devices of the command line, and what is done to them later.
final class Controllers: Sendable {
  /// In the order of their numbers.
  let devices: [(vsp: StorVSP, faults: [FaultPlan], vtl: UInt8)]
  /// Each disk of the command line has its number there: its controller's place, and its LUN.
  private let disks: [(device: Int, lun: Int)]
  private let numbers: [Int: Int]
  private let attached: Atomic<Int>
  private let logger: Logger

  init(
    _ arguments: [DiskArgument], faults: [FaultArgument], subchannels: UInt16, logger: Logger
  ) throws {
    let places = arguments.enumerated().map { $1.controller ?? $0 }
    var numbers: [Int: Int] = [:]
    var devices: [(vsp: StorVSP, faults: [FaultPlan], vtl: UInt8)] = []
    for number in Set(places).sorted() {
      let own = arguments.indices.filter { places[$0] == number }
      guard Set(own.map { arguments[$0].lun }).count == own.count else {
        throw ProgramFailure(.usage, "controller \(number) has two disks at one LUN")
      }
      guard Set(own.map { arguments[$0].flags.rawValue }).count == 1 else {
        throw ProgramFailure(.usage, "the disks of controller \(number) differ in memory=")
      }
      guard Set(own.map { arguments[$0].vtl }).count == 1 else {
        throw ProgramFailure(.usage, "the disks of controller \(number) differ in vtl=")
      }
      var controller = SCSIController()
      for index in own {
        _ = controller.attach(try arguments[index].makeDisk(index), lun: arguments[index].lun)
      }
      var newest = StorageVersion.windows81
      var plans: [FaultPlan] = []
      for fault in faults where own.contains(fault.disk) {
        switch fault.kind {
        case .channel(let plan): plans.append(plan)
        case .command(let fault1):
          controller.withFaults(lun: arguments[fault.disk].lun) { $0.inject(fault1) }
        case .version(let version): newest = version ?? StorageVersion(rawValue: 0)
        }
      }
      numbers[number] = devices.count
      let vsp = StorVSP(
        controller, instance: DiskArgument.instance(number),
        flags: own.first.map { arguments[$0].flags } ?? [], newestVersion: newest,
        maximumSubchannels: subchannels)
      devices.append((vsp, plans, own.first.map { arguments[$0].vtl } ?? 0))
    }
    disks = arguments.indices.map { (numbers[places[$0]] ?? 0, arguments[$0].lun) }
    self.devices = devices
    self.numbers = numbers
    attached = Atomic(arguments.count)
    self.logger = logger
  }

  /// What can be written to the control pipe.
  static let commands = """
    attach FILE[,option...], detach controller=N,lun=N, rescan (sizes of images), \
    fault DISK:FAULT (of commands), controller N rescind|offer
    """

  /// One line of the control pipe.
  func execute(_ line: String, _ offers: DeviceOffers) {
    let words = line.split(separator: " ", maxSplits: 1).map(String.init)
    let argument = words.count == 2 ? words[1] : ""
    do {
      switch words.first {
      case nil: return
      case "attach": try attach(argument)
      case "detach": try detach(argument)
      case "rescan":
        for device in devices where device.vsp.rescan() { logger.info("a disk's size changed") }
      case "fault": try inject(argument)
      case "controller": try offerOrRescind(argument, offers)
      default: throw ProgramFailure(.usage, "no such command; there are: \(Self.commands)")
      }
      logger.info("done: \(line)")
    } catch {
      logger.error("\(line): \(error)")
    }
  }

  private func device(_ number: Int) throws -> StorVSP { devices[try index(number)].vsp }

  private func index(_ number: Int) throws -> Int {
    guard let index = numbers[number] else {
      throw ProgramFailure(.usage, "there is no controller \(number)")
    }
    return index
  }

  private func offerOrRescind(_ text: String, _ offers: DeviceOffers) throws {
    let words = text.split(separator: " ")
    guard words.count == 2, let number = Int(words[0]) else {
      throw ProgramFailure(.usage, "not controller N rescind|offer")
    }
    switch words[1] {
    case "rescind": offers.rescind(try index(number))
    case "offer": offers.offer(try index(number))
    default: throw ProgramFailure(.usage, "not controller N rescind|offer")
    }
  }

  private func attach(_ text: String) throws {
    guard let argument = DiskArgument(argument: text), argument.flags.isEmpty else {
      throw ProgramFailure(.usage, "not FILE[,option...]")
    }
    let number = attached.add(1, ordering: .relaxed).oldValue
    let vsp = try device(argument.controller ?? 0)
    vsp.attach(try argument.makeDisk(number), lun: argument.lun)
  }

  private func detach(_ text: String) throws {
    guard let place = DiskPlace(text) else {
      throw ProgramFailure(.usage, "not controller=N,lun=N")
    }
    guard try device(place.controller).detach(lun: place.lun) else {
      throw ProgramFailure(.usage, "there is no disk")
    }
  }

  private func inject(_ text: String) throws {
    guard let argument = FaultArgument(argument: text), case .command(let fault) = argument.kind,
      disks.indices.contains(argument.disk)
    else { throw ProgramFailure(.usage, "not DISK:FAULT of a disk's commands") }
    let disk = disks[argument.disk]
    devices[disk.device].vsp.withFaults(lun: disk.lun) { $0.inject(fault) }
  }
}
