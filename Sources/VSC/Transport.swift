// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// What the framework needs of the world below it, for one device. The framework does not know
/// which transport it is on: a simulated host, a device file, or something else.
public protocol DeviceTransport: AnyObject, Sendable {
  var identity: DeviceIdentity { get }

  /// What else can be told of the device, for people, in the order in which they read it.
  var properties: [DeviceProperty] { get }

  /// Why the device can't be opened as things are; nil when it can.
  var obstacle: DeviceObstacle? { get }

  /// Opens a channel of the device and wakes `worker` when the host signals it.
  func openChannel(_ parameters: ChannelParameters, worker: Worker) async throws(TransportError)
    -> RawChannel

  /// Why the device can have its primary channel alone, in plain words; nil where it can have what its host
  /// offers.
  var whyNoSubchannels: String? { get }

  /// As `openChannel`, for a subchannel, which the host offers after the driver has asked the device for it:
  /// this waits for the offer.
  ///
  /// - Parameter index: the first subchannel is 1.
  func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel

  /// Zeroed memory that the device may be given. It stays until the device is closed.
  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages

  /// Zeroed memory with a GPADL of the primary channel, which is open. It is torn down when that channel
  /// is closed.
  func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages

  /// How the device ended, or nil while it has not.
  var endReason: ChannelEnd? { get }

  /// Returns when the device is gone: taken back, its host with it, or its primary channel ended.
  func ended() async -> ChannelEnd

  /// Closes all channels, waits until the host is known to be quiet, frees the memory.
  func close() async
}

extension DeviceTransport {
  public var obstacle: DeviceObstacle? { nil }
  public var endReason: ChannelEnd? { nil }
  public var whyNoSubchannels: String? { nil }

  public func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel { throw .noSubchannels }

  public func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages { throw .noSharedMemory(use) }
}

/// What stands in the way of opening a device, in plain words.
public struct DeviceObstacle: Sendable, Equatable, CustomStringConvertible {
  public let reason: String
  /// What to do about it, where something can be done.
  public let remedy: String?

  public init(_ reason: String, remedy: String? = nil) {
    self.reason = reason
    self.remedy = remedy
  }

  public var description: String { reason + (remedy.map { " (\($0))" } ?? "") }
}

/// One thing that is known of a device.
public struct DeviceProperty: Sendable, Equatable {
  public let name: String
  public let value: String

  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }
}

/// What is known of a device before it is opened.
public struct DeviceIdentity: Sendable, Hashable {
  public var deviceClass: DeviceClass
  /// Stable for the life of the machine's configuration.
  public var instance: GUID
  /// The primary channel's relid.
  public var channel: ChannelID
  /// Nil when it is not known, or the offer's flags are not lawful: such a device is not opened.
  public var confidentiality: Confidentiality?
  /// Where the device was found, for people: "simulated host", "/dev/uio0".
  public var transport: String

  public init(
    deviceClass: DeviceClass, instance: GUID, channel: ChannelID,
    confidentiality: Confidentiality?, transport: String
  ) {
    self.deviceClass = deviceClass
    self.instance = instance
    self.channel = channel
    self.confidentiality = confidentiality
    self.transport = transport
  }

  /// How data comes to the device, for people: "bounced" is by a copy in host-visible memory, which is scrubbed
  /// when the device is done with it. Nil where it is not known.
  ///
  /// - Parameter isIsolated: whether the host sees a part of the machine's memory only.
  public func data(isIsolated: Bool) -> String? {
    confidentiality.map { isIsolated && $0 != .ringAndExternalMemory ? "bounced" : "direct" }
  }
}

/// What a driver asks for when it opens a channel.
public struct ChannelParameters: Sendable {
  /// Bytes of each of the two rings, control page included; a multiple of 4096. A transport whose
  /// rings have a given size ignores it.
  public var ringByteCount: Int
  /// The largest packet that the driver accepts, descriptor and trailer excluded.
  public var maximumPacketByteCount: Int
  /// What the open message carries. Not every transport can send it.
  public var userData: UserData

  public init(
    ringByteCount: Int = 128 * 1024, maximumPacketByteCount: Int = 4096,
    userData: UserData = UserData()
  ) {
    self.ringByteCount = ringByteCount
    self.maximumPacketByteCount = maximumPacketByteCount
    self.userData = userData
  }
}

/// A channel as a transport opened it: rings, doorbell, end. The framework makes a `Channel` of
/// it, with the types that the offer's flags demand.
public struct RawChannel: ~Copyable, Sendable {
  /// Answers once, at this open (the flags may be others at the next one).
  public let confidentiality: Confidentiality
  public let outgoing: BorrowedRingMemory
  public let incoming: BorrowedRingMemory
  public let trailerCheck: TrailerCheck
  public let doorbell: Doorbell
  public let state: ChannelState

  public init(
    confidentiality: Confidentiality, outgoing: consuming BorrowedRingMemory,
    incoming: consuming BorrowedRingMemory, trailerCheck: TrailerCheck = .verify,
    doorbell: Doorbell, state: ChannelState
  ) {
    self.confidentiality = confidentiality
    self.outgoing = outgoing
    self.incoming = incoming
    self.trailerCheck = trailerCheck
    self.doorbell = doorbell
    self.state = state
  }
}

/// How the host is signalled. A plain value, so that ringing costs what the call costs.
public enum Doorbell: Sendable {
  /// An eventfd that the host waits on.
  case event(descriptor: Int32)
  /// A file of Linux's `uio_hv_generic`: a hypercall for each channel of the device that no monitor
  /// serves. It unmasks the interrupts of all channels of the device, too.
  case deviceFile(descriptor: Int32)
  /// One channel of a device of the kernel module `hv_uservsc`.
  case moduleFile(ModuleSignal)
  /// A bit of the monitor page, at which the host looks now and then: no call at all.
  case monitor(MonitorTrigger)
}

/// A channel's bit in the monitor page that the host reads.
@safe
public struct MonitorTrigger: @unchecked Sendable {
  // All accesses are atomic.
  @usableFromInline let pending: UnsafeMutablePointer<Atomic<UInt32>>
  @usableFromInline let mask: UInt32

  /// - Parameter page: the page from guest to host; the caller keeps it mapped for as long as this
  ///   value is used.
  @unsafe
  public init(page: UnsafeMutableRawPointer, monitor: MonitorID) {
    let word = unsafe page + MonitorPage.pendingOffset(monitor)
    unsafe pending = word.assumingMemoryBound(to: Atomic<UInt32>.self)
    mask = monitor.mask
  }

  @inlinable
  func set() {
    _ = unsafe pending.pointee.bitwiseOr(mask, ordering: .sequentiallyConsistent)
  }
}

/// A channel of a device of the module's, and the word by which that tells the end of the device.
@safe
public struct ModuleSignal: @unchecked Sendable {
  @usableFromInline let descriptor: Int32
  @usableFromInline let channel: UInt32
  // All accesses are atomic.
  @usableFromInline let status: UnsafePointer<Atomic<UInt32>>

  /// - Parameter status: the module's status page; the caller keeps it mapped for as long as this value is
  ///   used.
  @unsafe
  public init(descriptor: Int32, channel: UInt32, status: UnsafeRawPointer) {
    self.descriptor = descriptor
    self.channel = channel
    unsafe self.status = status.assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  func send() { ModuleFile.signal(descriptor, channel: channel) }

  /// Whether rings and DMA memory may be other memory by now. While they are not, all that was read and
  /// written before this call was theirs.
  @inlinable var isOver: Bool {
    atomicMemoryFence(ordering: .acquiring)
    return unsafe status.pointee.load(ordering: .relaxed) != 0
  }
}

extension Doorbell {
  @usableFromInline
  func ring() {
    switch self {
    case .event(let descriptor): EventDescriptor.signal(descriptor)
    case .deviceFile(let descriptor): DeviceFile.signal(descriptor)
    case .moduleFile(let signal): signal.send()
    case .monitor(let trigger): trigger.set()
    }
  }

  /// Ringing, of this channel or another one of the device, takes away the mask that a polling
  /// channel has set.
  @inlinable var unmasks: Bool {
    if case .deviceFile = self { true } else { false }
  }

  /// The kernel may take the rings away at any time: then they read as zero, or as anything.
  @inlinable var isOfKernel: Bool {
    if case .event = self { false } else { true }
  }
}

/// The life of a channel, shared between the transport and the channel's worker. It keeps the
/// ring memory mapped; a transport subclasses it to keep what it needs.
@safe
open class ChannelState: @unchecked Sendable {
  // Only the atomic changes.
  private let end: UnsafeMutablePointer<Atomic<UInt32>>

  public init() {
    unsafe end = .allocate(capacity: 1)
    unsafe end.initialize(to: Atomic(0))
  }

  deinit { unsafe end.deallocate() }

  /// The transport tells that the channel is over; the first reason stays.
  open func end(_ reason: ChannelEnd) {
    _ = unsafe end.pointee.compareExchange(
      expected: 0, desired: reason.rawValue, ordering: .sequentiallyConsistent)
  }

  /// Why the channel is over, or nil while it is not.
  public var ended: ChannelEnd? {
    ChannelEnd(rawValue: unsafe end.pointee.load(ordering: .acquiring))
  }

  /// Where the reason is kept, 0 while there is none: for a signal handler, which can call nothing.
  @unsafe
  public var endWord: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(end) }

  /// The driver lets go of the channel: the transport closes it with the host. Called once.
  open func release() {}
}

/// Why a transport could not do what was asked: one line for a person.
public enum TransportError: Error, Equatable, Sendable, CustomStringConvertible {
  case hostGone
  case rescinded
  /// The host answered the open with this status.
  case openRefused(ControlStatus)
  case gpadlRefused(ControlStatus)
  /// The external memory flag without the ring flag, or flags on a connection that may not
  /// carry them.
  case unlawfulFlags(OfferFlags)
  case outOfMemory(MemoryVisibility, byteCount: Int)
  /// The machine has not that many free huge pages of 2 MiB.
  case noHugePages(count: Int)
  /// The machine has no memory of that kind for devices.
  case noSuchMemory(MemoryVisibility)
  case alreadyOpen
  /// A subchannel that uses other memory than its device's primary channel.
  case subchannelDiffers(Confidentiality)
  /// The device has no subchannels here.
  case noSubchannels
  /// The device can't be given memory for that here.
  case noSharedMemory(SharedMemoryUse)
  /// Another process has the device.
  case inUse(path: String)
  /// The system refused; `need` says what this process lacks.
  case notPermitted(path: String, need: String)
  /// Which memory the channel uses can't be learned, and touching the wrong mapping may leak or fault.
  case confidentialityUnknown(reason: String)
  /// What the device is or has is not what it must be.
  case unusable(reason: String)
  case timedOut(WireName)
  case ring(RingError)
  case system(WireName, code: Int32, text: String)

  public var description: String {
    switch self {
    case .hostGone: "the host is gone"
    case .rescinded: "the host took the device back"
    case .openRefused(let status): "the host refused to open the channel (status \(status))"
    case .gpadlRefused(let status): "the host refused the ring's memory (status \(status))"
    case .unlawfulFlags(let flags):
      "the offer's flags 0x\(String(flags.rawValue, radix: 16)) are not lawful on this connection"
    case .outOfMemory(let memory, let count):
      "\(count) bytes of \(memory) memory are not free: give the machine more of it"
    case .noHugePages(let count):
      "\(count) free huge pages of 2 MiB are needed: write more into /proc/sys/vm/nr_hugepages"
    case .noSuchMemory(let memory): "this machine has no \(memory) memory for devices"
    case .alreadyOpen: "the device is open already"
    case .subchannelDiffers(let found):
      "a subchannel was offered with other memory (\(found)) than its primary channel"
    case .noSubchannels: "the device has no subchannels"
    case .noSharedMemory(let use): "the device has no \(use.rawValue) buffer"
    case .inUse(let path): "\(path) is in use by another process"
    case .notPermitted(let path, let need): "\(path): permission denied; \(need)"
    case .confidentialityUnknown(let reason):
      "which memory the channel uses is not known, so it is not touched: \(reason)"
    case .unusable(let reason): reason
    case .timedOut(let what): "the host did not answer in time (\(what))"
    case .ring(let error): error.description
    case .system(let what, _, let text): "\(what): \(text)"
    }
  }
}
