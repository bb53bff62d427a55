// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Logging
public import Platform
import Synchronization
public import SystemPackage
public import VMBus

/// A Hyper-V host in this process: it offers devices to the guests that join over a Unix socket.
///
/// Guests are other processes, or this one in a test: they see the same socket, messages, rings
/// and eventfds either way.
public final class SimulatedHost: Sendable {
  public struct Configuration: Sendable {
    public var server = ServerConfiguration()
    /// Where control messages and ring packets go.
    public var capture: Capture?
    /// What looks at all that this host can see of a guest, at each of its signals.
    public var watch: SecretWatch?
    /// The threads that serve devices, one or more.
    public var workers: [Worker.Configuration] = [.init(name: "vsp")]
    /// Whether guests that have monitor pages signal through them, and not by hypercall: it takes
    /// a millisecond then until their packets are seen.
    public var usesMonitors = false
    /// Whether each open ring is looked at every millisecond, for guests that do not signal: Linux in a
    /// VBS machine with a paravisor.
    public var pollsRings = false
    /// Whether data of a channel with encrypted external memory may lie in host-visible pages too:
    /// Linux's storage driver bounces it whatever the offer says.
    public var acceptsSharedData = false
    /// Makes this host the paravisor of its guests: the socket of their host, whose channels it
    /// offers to them beside its own.
    public var hostPath: String?
    /// How long a guest waits for the offers of a host that does not tell them.
    public var hostPatience = Duration.seconds(5)
    /// What guests read of CPUID; other leaves are zero.
    public var leaves: [UInt32: CPUIDLeaf] = [:]
    public var logger = Logger(label: "vmbus-host")

    public init() {
      logger.logLevel = .warning
      // Granted only to a guest that we are the paravisor of.
      server.features.insert(.confidentialChannels)
    }
  }

  /// Names a device of this host.
  public struct DeviceID: Hashable, Sendable {
    let index: Int
  }

  private let core: HostCore
  private let listener: Listener
  public let path: String
  /// Those that it was made with, in their order.
  public let devices: [DeviceID]

  private final class Listener: Sendable {
    let socket: PacketListener

    init(_ path: String) throws(Errno) { socket = try PacketListener(path: path) }
  }

  /// Listens at `path`.
  ///
  /// - Parameter devices: those that the first guest finds already.
  public init(
    path: String, _ configuration: Configuration = Configuration(),
    devices: [HostDevice] = []
  ) throws(Errno) {
    listener = try Listener(path)
    self.path = path
    core = try HostCore(configuration)
    let (core, listener) = (core, listener)
    self.devices = devices.map { [core] in
      DeviceID(index: core.add($0))
    }
    core.control.watch(listener.socket.owned.rawValue) {
      do throws(Errno) {
        while let socket = try listener.socket.accept() { core.add(socket) }
      } catch {
        // Out of descriptors, say. The one who knocks stays at the door; not so often.
        core.logger.error("a guest can't be let in: \(error)")
        vmbus_sleep_milliseconds(50)
      }
    }
  }

  /// Gives all guests, present and future, a device.
  @discardableResult
  public func add(_ vsp: any VSP, faults: [FaultPlan] = [], vtl: UInt8 = 0) -> DeviceID {
    add(HostDevice(vsp, faults: faults, vtl: vtl))
  }

  @discardableResult
  public func add(_ device: HostDevice) -> DeviceID { DeviceID(index: core.add(device)) }

  /// Takes a device back from all guests.
  public func revoke(_ device: DeviceID) { core.revoke(device.index) }

  /// What each thread that serves devices did so far.
  public var accounts: [Worker.Account] { core.workers.map(\.account) }

  /// Messages that were refused and channels that are served no more, because a guest broke the
  /// protocol.
  public var refusals: UInt64 { core.refusals }

  /// Pages of the wrong visibility that were wanted, or that changed while somebody had them, of all
  /// guests that have left. The log names them.
  public var visibilityViolations: UInt64 { core.visibilityViolations }

  /// How guests have posted their messages.
  public struct PostCounts: Equatable, Sendable {
    /// By plain hypercalls.
    public var plain: UInt64
    /// Past a paravisor, by GHCB.
    public var vmgexit: UInt64
    /// Past a paravisor, by tdcall.
    public var tdcall: UInt64
  }

  public var posts: PostCounts { core.posts }

  /// Cuts off all guests and ends all threads.
  public func stop() {
    core.control.unwatch(listener.socket.owned.rawValue)
    listener.socket.removePath()
    core.stop()
  }
}

/// A device as the host keeps it.
public struct HostDevice: Sendable {
  public var vsp: any VSP
  public var faults: [FaultPlan]
  /// 0 for guests, 2 for what only a paravisor is to see.
  public var vtl: UInt8

  public init(_ vsp: any VSP, faults: [FaultPlan] = [], vtl: UInt8 = 0) {
    self.vsp = vsp
    self.faults = faults
    self.vtl = vtl
  }
}

/// What the host's guests share. Everything that changes belongs to the control thread.
@safe
final class HostCore: @unchecked Sendable {
  let configuration: SimulatedHost.Configuration
  let logger: Logger
  let control: Worker
  let workers: [Worker]
  private(set) var devices: [Int: HostDevice] = [:]
  private var partitions: [Int: Partition] = [:]
  private var nextPartition = 1
  private let nextDevice = Atomic<Int>(0)
  private let refusalCount = Atomic<UInt64>(0)
  private let violationCount = Atomic<UInt64>(0)
  private let plainPosts = Atomic<UInt64>(0)
  private let vmgexits = Atomic<UInt64>(0)
  private let tdcalls = Atomic<UInt64>(0)
  static let maximumPartitions = 256

  init(_ configuration: SimulatedHost.Configuration) throws(Errno) {
    var configuration = configuration
    if configuration.hostPath != nil {
      // The lower relids are the host's, which gives them out from 1 up.
      configuration.server.channelIDs = ChannelID(1024)...ChannelID.valid.upperBound
    }
    self.configuration = configuration
    logger = configuration.logger
    control = try Worker(.init(name: "vmbus-control", spinRounds: 0))
    var workers: [Worker] = []
    for worker in configuration.workers.isEmpty ? [.init(name: "vsp")] : configuration.workers {
      do throws(Errno) {
        workers.append(try Worker(worker))
      } catch {
        control.stop()
        for worker in workers { worker.stop() }
        throw error
      }
    }
    self.workers = workers
  }

  func add(_ device: HostDevice) -> Int {
    let index = nextDevice.add(1, ordering: .relaxed).oldValue
    control.post { [self] in
      devices[index] = device
      for partition in partitions.values where partition.hasJoined {
        partition.offer(device, index)
      }
    }
    return index
  }

  func revoke(_ index: Int) {
    control.post { [self] in
      devices[index] = nil
      for partition in partitions.values { partition.revoke(device: index) }
    }
  }

  /// Calls `body` on the control thread, after some time.
  func later(_ time: Duration, _ body: @escaping @Sendable () -> Void) {
    let control = control
    Task.detached {
      try await Task.sleep(for: time)
      control.post(body)
    }
  }

  /// Devices are spread over the threads.
  func worker(for device: Int) -> Worker { workers[device % workers.count] }

  /// On the control thread.
  func add(_ socket: consuming PacketSocket) {
    guard partitions.count < Self.maximumPartitions else {
      return logger.error("a guest was turned away: there are \(partitions.count)")
    }
    let partition = Partition(self, number: nextPartition, socket: socket)
    partitions[nextPartition] = partition
    nextPartition += 1
    partition.start()
  }

  var visibilityViolations: UInt64 { violationCount.load(ordering: .relaxed) }

  func countViolations(_ count: UInt64) { violationCount.add(count, ordering: .relaxed) }

  var refusals: UInt64 { refusalCount.load(ordering: .relaxed) }

  enum PostWay {
    case plain
    case vmgexit
    case tdcall
  }

  func count(_ way: PostWay) {
    switch way {
    case .plain: plainPosts.add(1, ordering: .relaxed)
    case .vmgexit: vmgexits.add(1, ordering: .relaxed)
    case .tdcall: tdcalls.add(1, ordering: .relaxed)
    }
  }

  var posts: SimulatedHost.PostCounts {
    SimulatedHost.PostCounts(
      plain: plainPosts.load(ordering: .relaxed), vmgexit: vmgexits.load(ordering: .relaxed),
      tdcall: tdcalls.load(ordering: .relaxed))
  }

  func countRefusal() { refusalCount.add(1, ordering: .relaxed) }

  /// On the control thread.
  func remove(_ partition: Partition) { partitions[partition.number] = nil }

  func stop() {
    control.post { [self] in for partition in partitions.values { partition.shutDown() } }
    for worker in workers { worker.stop() }
    control.stop()
  }
}
