// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FoundationEssentials
import HostPrograms
import Logging
import Paravisor
import Platform
import ProgramSupport
import SimulatedHost
import SystemPackage
import VMBus

/// The trusted layer of a simulated confidential machine, as a process.
struct ParavisorProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmbus-paravisor",
    abstract: "A simulated paravisor: between confidential guests and a host that is not trusted.",
    discussion: """
      Guests are driver programs that join it (vsc-storage --host PATH --machine confidential). It
      offers them the host's channels beside its own, whose rings are encrypted; the data of the
      host's disks for it (vmbus-host --disk FILE,vtl=2) the host never sees in the clear.
      It runs until SIGINT or SIGTERM.
      """,
    version: projectVersion)

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"))
  var socket: String

  @Option(help: ArgumentHelp("The socket of the host.", valueName: "path"))
  var host: String

  @Option(help: "What CPUID says of the machine: snp, tdx or vbs.")
  var isolation: IsolationArgument = .snp

  @Flag(help: "Neither offer nor grant a confidential connection, as older paravisors.")
  var noConfidential = false

  @Option(help: "The newest version of the bus that is spoken: 4.0 to 6.0.")
  var newestVersion: VersionArgument = VersionArgument(version: .v6_0)

  @Option(
    help: ArgumentHelp(
      "A disk of the host for this paravisor, from 0, to offer as one of its own: encrypted with the 64 bytes of KEYFILE (AES-256-XTS, as dm-crypt's aes-xts-plain64). memory=ring encrypts the ring alone, memory=all (the default) the guest's data too.",
      valueName: "N,key=KEYFILE[,memory=...]"))
  var disk: [HostDiskArgument] = []

  @Option(
    help: ArgumentHelp(
      "A network device of its own: \(NICArgument.syntax). memory=ring encrypts the ring alone, memory=all (the default) the packets too; other options as those of vmbus-host.",
      valueName: "kind[,option...]"))
  var nic: [NICArgument] = []

  @Option(help: ArgumentHelp("Threads that serve devices.", valueName: "count"))
  var workers: Int = 1

  @OptionGroup var isolatedGuests: IsolatedGuestOptions

  @Option(
    help: ArgumentHelp(
      "Write control messages and ring packets to a pcapng file.", valueName: "file"))
  var capture: String?

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func validate() throws {
    guard 1...64 ~= workers else { throw ValidationError("--workers must be 1 to 64.") }
  }

  func run() async throws {
    try Termination.handle()
    Privileges.hide()
    var logger = Logger(
      label: "vmbus-paravisor", factory: StreamLogHandler.standardError(label:))
    logger.logLevel = verbose ? .debug : .warning
    var configuration = SimulatedHost.Configuration()
    configuration.logger = logger
    configuration.hostPath = host
    configuration.workers = (0..<workers).map { Worker.Configuration(name: "vsp-\($0)") }
    configuration.pollsRings = isolatedGuests.pollRings
    configuration.acceptsSharedData = isolatedGuests.acceptSharedData
    configuration.leaves = IsolatedMachine(
      kind: isolation.kind, hasParavisor: true, offersConfidentialVMBus: !noConfidential
    ).leaves(boundaryBit: 46)
    configuration.server.versions = ProtocolVersion.supported.filter {
      $0 <= newestVersion.version
    }
    if noConfidential { configuration.server.features.remove(.confidentialChannels) }
    if let capture {
      do throws(Errno) {
        configuration.capture = try Capture(path: capture)
      } catch {
        throw ProgramFailure(.cannotCreate, "\(capture): \(error)")
      }
    }
    let disks: HostDisks
    do {
      disks = try await HostDisks.open(path: host)
    } catch {
      throw ProgramFailure(.unavailable, "\(host): \(error)")
    }
    let devices =
      try disk.map { HostDevice(try $0.device(disks)) }
      + NICArgument.devices(nic.map(\.confidential), of: .paravisor, logger: logger).map {
        HostDevice($0)
      }
    let paravisor: SimulatedHost
    do throws(Errno) {
      paravisor = try SimulatedHost(path: socket, configuration, devices: devices)
    } catch {
      await disks.close()
      throw ProgramFailure(.cannotCreate, "\(socket): \(error)")
    }
    logger.info("listening on \(socket) with \(devices.count) devices")
    _ = Termination.wait()
    paravisor.stop()
    await disks.close()
  }
}

struct VersionArgument: ExpressibleByArgument {
  let version: ProtocolVersion

  init(version: ProtocolVersion) { self.version = version }

  init?(argument: String) {
    guard let version = ProtocolVersion.supported.first(where: { "\($0)" == argument }) else {
      return nil
    }
    self.version = version
  }

  var defaultValueDescription: String { "\(version)" }
}

enum IsolationArgument: String, ExpressibleByArgument, CaseIterable {
  case snp
  case tdx
  case vbs

  var kind: IsolatedMachine.Kind {
    switch self {
    case .snp: .sevSNP
    case .tdx: .tdx
    case .vbs: .vbs
    }
  }
}

/// `N,key=KEYFILE[,memory=ring|all]`
struct HostDiskArgument: ExpressibleByArgument {
  let number: Int
  private var keyPath = ""
  private var flags: OfferFlags = .confidential

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let number = parts.first.flatMap({ Int($0) }), number >= 0 else { return nil }
    self.number = number
    for option in parts.dropFirst() {
      switch option {
      case "memory=ring": flags = .confidentialRingBuffer
      case "memory=all": flags = .confidential
      default:
        guard option.hasPrefix("key=") else { return nil }
        keyPath = String(option.dropFirst(4))
      }
    }
    guard !keyPath.isEmpty else { return nil }
  }

  /// The controller that guests are offered.
  func device(_ disks: HostDisks) throws -> StorVSP {
    guard disks.disks.indices.contains(number) else {
      throw ProgramFailure(
        .unavailable, "the host has no disk \(number) for a paravisor: vmbus-host --disk FILE,vtl=2"
      )
    }
    guard let key = FileManager.default.contents(atPath: keyPath) else {
      throw ProgramFailure(.noInput, "\(keyPath): no key can be read there")
    }
    guard let disk = EncryptedDisk(disks.disks[number], key: [UInt8](key)) else {
      throw ProgramFailure(
        .data, "\(keyPath): a key has 64 bytes, and its halves differ; this one has \(key.count)")
    }
    var instance: GUID = "9a7a5150-0000-4000-8000-000000000000"
    instance.wireBytes[15] = UInt8(truncatingIfNeeded: number)
    var controller = SCSIController()
    _ = controller.attach(try SCSIDisk(.other(disk), identity: instance), lun: 0)
    return StorVSP(controller, instance: instance, flags: flags)
  }
}
