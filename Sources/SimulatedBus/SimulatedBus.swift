// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Logging
import Platform
import Synchronization
import SystemPackage
public import VMBus
public import VSC

/// The VMBus of a simulated host, as a guest sees it: this process joins the host over its socket
/// and finds devices there.
///
/// One thread, virtual processor 0, has the control plane; each driver worker is a virtual
/// processor of its own and takes its channels' interrupts itself.
public final class SimulatedBus: DeviceBus {
  public struct Configuration: Sendable {
    public var machine: Machine
    /// Whether a confidential machine asks for a confidential connection.
    public var confidential = ConfidentialChoice.automatic
    /// The trust level that this guest runs at: 2 for a paravisor, which finds other devices.
    public var vtl: UInt8 = 0
    /// Bytes of each kind of memory. It takes room only as it is used.
    public var memoryByteCount: Int
    /// How many workers may use channels of this bus, 1 to 63.
    public var maximumWorkers: Int
    /// Seconds that the host may take to answer.
    public var timeoutSeconds: Int
    /// The newest protocol version to ask for.
    public var versions: [ProtocolVersion]
    public var logger: Logger

    public init(machine: Machine = .isolated) {
      self.machine = machine
      memoryByteCount = 256 << 20
      maximumWorkers = 15
      timeoutSeconds = 30
      versions = ProtocolVersion.supported
      logger = Logger(label: "vmbus")
      logger.logLevel = .warning
    }
  }

  /// What an operator says of the confidential connection.
  public enum ConfidentialChoice: String, Sendable, CaseIterable {
    /// Tried where CPUID tells of it; the host's connection is taken when it is refused.
    case automatic
    /// Without it there is no connection.
    case require
    /// Not tried.
    case never
  }

  let core: BusCore
  /// The socket's path.
  public let name: String

  private init(_ core: BusCore, name: String) {
    self.core = core
    self.name = name
  }

  /// Joins the host that listens at `path`, and returns when it has told all its devices.
  public static func connect(
    path: String, _ configuration: Configuration = Configuration()
  ) async throws(TransportError) -> SimulatedBus {
    let machine = try GuestMachine(
      path: path, kind: configuration.machine, vtl: configuration.vtl,
      processorCount: 1 + min(max(configuration.maximumWorkers, 1), 63),
      memoryByteCount: configuration.memoryByteCount)
    let core: BusCore
    do throws(Errno) {
      core = try BusCore(machine, configuration)
    } catch {
      throw .system("control thread", code: error.rawValue, text: "\(error)")
    }
    do throws(TransportError) {
      try await core.connect()
    } catch {
      core.shutDown()
      throw error
    }
    return SimulatedBus(core, name: path)
  }

  /// The devices that the host offers now, by relid.
  public var devices: [any DeviceTransport] { core.devices }

  /// What was agreed on with the host.
  public var connection: ClientConnection? { core.connection }

  public var machine: Machine { core.machine.kind }

  /// What of the guest's memory the host may see now, and what for. Free memory is not in it.
  public var hostVisibleUses: [(pages: Range<GPN>, use: String)] {
    core.machine.pages.hostVisibleUses.map { ($0.pages, $0.use.description) }
  }

  /// How many messages of the host were refused because they break the protocol.
  public var refusedMessages: Int { core.refusedMessages }

  /// Leaves the host: all devices are closed with it. Their drivers should be gone before.
  public func disconnect() async {
    await core.disconnect()
    core.shutDown()
  }
}
