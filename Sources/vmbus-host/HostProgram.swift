// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import HostPrograms
import Logging
import Platform
import ProgramSupport
import SimulatedHost
import Synchronization
import SystemPackage
import VMBus

/// The simulated host as a process.
struct HostProgram: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmbus-host",
    abstract: "A simulated Hyper-V host: serves VMBus devices to guests on this machine.",
    discussion: """
      Guests are driver programs (vsc-storage --host PATH) that join over the socket. Each disk is
      a device of its own, and so are each network interface and dynamic memory. The host runs until SIGINT or SIGTERM.
      """,
    version: projectVersion)

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"))
  var socket: String

  @Option(
    help: ArgumentHelp(
      "A raw image to serve, sparse or not, or memory:SIZE. Options: ro, block=512|4096, physical=4096 (512e), controller=N and lun=N (by default each disk has a controller of its own), vtl=2 (for a paravisor, not for its guests), memory=ring (encrypted ring) or memory=all (encrypted DMA too; both for guests whose paravisor this is), memory=external (a fault: encrypted DMA under a ring that is not).",
      valueName: "file[,option...]"))
  var disk: [DiskArgument] = []

  @Option(
    help: ArgumentHelp(
      "A network device: \(NICArgument.syntax). Options: mac=ADDRESS (the first guest's), mtu=68...9000, queues=1...64, speed=MBITS, version=6.1|6.0|5.0|4.0|3.2|0.2 (the newest that is spoken), memory=ring|all as for disks.",
      valueName: "kind[,option...]"))
  var nic: [NICArgument] = []

  @Option(
    help: ArgumentHelp(
      "Offer dynamic memory, and ask each guest for so many MiB; 0 only takes its reports.",
      valueName: "MiB"))
  var balloon: Int?

  @Flag(help: "Offer a device that sends each packet back: the first driver's (README.md).")
  var echo = false

  @Option(
    help: ArgumentHelp(
      "Integration components: heartbeat, timesync and shutdown, with commas between them.",
      valueName: "list"))
  var integration: IntegrationDevices.Argument?

  @Option(help: ArgumentHelp("Threads that serve devices.", valueName: "count"))
  var workers: Int = 1

  @Option(help: ArgumentHelp("Processors for these threads, such as 1,3.", valueName: "list"))
  var cpu: CPUList?

  @Option(
    help: ArgumentHelp(
      "Rounds without work before such a thread sleeps; 0 never polls idly.", valueName: "rounds"))
  var spin: Int = 2000

  @Option(
    help: ArgumentHelp(
      "Write control messages and ring packets to a pcapng file.", valueName: "file"))
  var capture: String?

  @Option(
    help: ArgumentHelp(
      "Look for this text in all guest memory that the host can see, at each signal of a guest; at the end tell how often it looked and found any. Found is status 1. Can be given several times.",
      valueName: "text"))
  var watch: [String] = []

  @Option(
    help: ArgumentHelp(
      "A fault, DISK:FAULT, DISK from 0. Of its controller's completions: drop, twice, invent, delay, long, short, stall, garbage, crash, rescind, with :after=N :count=N :ms=N. Of its commands: \(StorageFault.syntax). Of the start-up: version=6.0|5.1|4.2|2.0|none, the newest that is accepted (6.0 by default, 6.2 at most).",
      valueName: "fault"))
  var fault: [FaultArgument] = []

  @Option(
    help: ArgumentHelp(
      "A fault of a network device, NIC:FAULT, NIC from 0: \(NICFaultArgument.syntax). Or of its completions, as for disks.",
      valueName: "fault"))
  var nicFault: [NICFaultArgument] = []

  @Option(
    help: ArgumentHelp(
      "Subchannels that each guest may ask for, of each disk's controller; by default one for each further thread.",
      valueName: "count"))
  var subchannels: Int?

  @Flag(
    help: "Let guests that have monitor pages signal through them instead of by hypercall.")
  var monitors = false

  @OptionGroup var isolatedGuests: IsolatedGuestOptions

  @Option(
    help: ArgumentHelp(
      "A named pipe to make, whose lines are commands: \(Controllers.commands), \(NetworkDevices.commands), \(IntegrationDevices.commands), watch (what --watch has found so far).",
      valueName: "path"))
  var control: String?

  @Option(
    help: ArgumentHelp(
      "Go on as this user when everything is open: a host that is not trusted.",
      valueName: "uid"))
  var user: UInt32?

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func validate() throws {
    guard 1...64 ~= workers else { throw ValidationError("--workers must be 1 to 64.") }
    guard spin >= 0 else { throw ValidationError("--spin must be 0 or more.") }
    if let balloon, !(0...1 << 30 ~= balloon) {
      throw ValidationError("--balloon must be 0 to 1073741824 MiB.")
    }
    guard 0...1023 ~= subchannels ?? 0 else {
      throw ValidationError("--subchannels must be 0 to 1023.")
    }
    for fault in fault where !disk.indices.contains(fault.disk) {
      throw ValidationError("--fault: there is no disk \(fault.disk).")
    }
    for fault in nicFault where !nic.indices.contains(fault.device) {
      throw ValidationError("--nic-fault: there is no network device \(fault.device).")
    }
  }

  func run() throws {
    try Termination.handle()
    var logger = Logger(label: "vmbus-host", factory: StreamLogHandler.standardError(label:))
    logger.logLevel = verbose ? .debug : .warning
    var configuration = SimulatedHost.Configuration()
    configuration.logger = logger
    configuration.workers = workerConfigurations
    configuration.usesMonitors = monitors
    configuration.pollsRings = isolatedGuests.pollRings
    configuration.acceptsSharedData = isolatedGuests.acceptSharedData
    configuration.server.offersUnlawfulFlags = disk.contains { $0.flags.confidentiality == nil }
    let watch = self.watch.isEmpty ? nil : SecretWatch(self.watch.map { Array($0.utf8) })
    configuration.watch = watch
    if let capture {
      do throws(Errno) {
        configuration.capture = try Capture(path: capture)
      } catch {
        throw ProgramFailure(.cannotCreate, "\(capture): \(error)")
      }
    }
    let controllers = try Controllers(
      disk, faults: fault, subchannels: UInt16(subchannels ?? workerConfigurations.count - 1),
      logger: logger)
    let disks = controllers.devices.map { HostDevice($0.vsp, faults: $0.faults, vtl: $0.vtl) }
    let networks = try NetworkDevices(nic, faults: nicFault, logger: logger)
    let nics = networks.devices.map { HostDevice($0.vsp, faults: $0.faults) }
    var devices = disks + nics
    if let balloon {
      let device = BalloonVSP(
        instance: "5d15c000-0000-4000-8000-0000000b0001", pages: UInt64(balloon) * 256,
        logger: logger)
      devices.append(HostDevice(device))
    }
    if echo { devices.append(HostDevice(EchoVSP())) }
    let components = IntegrationDevices(integration, logger: logger)
    devices += components.devices.map { HostDevice($0) }
    let host: SimulatedHost
    do throws(Errno) {
      host = try SimulatedHost(path: socket, configuration, devices: devices)
    } catch .addressInUse {
      throw ProgramFailure(.unavailable, "\(socket): another host listens there, or it is a file")
    } catch .invalidArgument {
      throw ProgramFailure(.usage, "a processor of --cpu is not one that this process may use")
    } catch {
      throw ProgramFailure(.cannotCreate, "\(socket): \(error)")
    }
    var pipe: ControlPipe?
    if let control {
      do throws(Errno) {
        let diskOffers = DeviceOffers(host, disks, first: 0)
        let nicOffers = DeviceOffers(host, nics, first: disks.count)
        pipe = try ControlPipe(path: control) { line in
          if line == "watch" {
            Self.tell(watch)
          } else if line.hasPrefix("nic ") {
            networks.execute(String(line.dropFirst(4)), nicOffers)
          } else if line.hasPrefix("integration ") {
            components.execute(String(line.dropFirst(12)))
          } else {
            controllers.execute(line, diskOffers)
          }
        }
      } catch {
        host.stop()
        throw ProgramFailure(.cannotCreate, "\(control): \(error)")
      }
    }
    if let user {
      do throws(Errno) { try Privileges.drop(to: user) } catch {
        pipe?.close()
        host.stop()
        throw ProgramFailure(.permission, "--user \(user): \(error)")
      }
    }
    logger.info("listening on \(socket) with \(devices.count) devices")
    _ = Termination.wait()
    pipe?.close()
    host.stop()
    Self.tell(watch)
    if watch?.counts.firstPage != nil { throw ExitCode(1) }
  }

  private static func tell(_ watch: SecretWatch?) {
    guard let counts = watch?.counts else { return }
    let place = counts.firstPage.map { ", first in guest page 0x\(String($0, radix: 16))" } ?? ""
    print("watched: \(counts.looks) looks, \(counts.findings) with findings\(place)")
  }

  private var workerConfigurations: [Worker.Configuration] {
    let cpus: [Int?] = cpu?.numbers ?? Array(repeating: nil, count: workers)
    return cpus.enumerated().map { index, cpu in
      Worker.Configuration(name: "vsp-\(index)", cpu: cpu, spinRounds: spin)
    }
  }
}
