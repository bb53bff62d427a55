// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Platform
import Synchronization
public import SystemPackage
public import VMBus

/// Why a call of a guest was not answered.
public enum LinkError: Error, Equatable, Sendable {
  /// The host is gone, or has not answered for half a minute.
  case hostGone
  /// The host's answer to the call is a refusal.
  case refused(HypercallStatus)
}

/// A guest's end of the link: it calls, and waits for each answer. From any thread.
public final class GuestLink: Sendable {
  private let socket: Lock<PacketSocket>
  /// For whoever waits for the host's end.
  public let descriptor: Int32

  /// Connects to the host that listens at a path.
  public convenience init(path: String) throws(Errno) {
    self.init(try PacketSocket(connectingTo: path))
  }

  /// - Parameter descriptor: a socket that a paravisor or a host handed over.
  public convenience init(_ descriptor: consuming OwnedDescriptor) {
    self.init(PacketSocket(descriptor))
  }

  private init(_ connected: consuming PacketSocket) {
    _ = vmbus_set_receive_timeout(connected.rawValue, 30)
    descriptor = connected.rawValue
    socket = Lock(connected)
  }

  /// Ends the connection; all calls fail from then on.
  public func shutDown() { socket.withLock { $0.shutDown() } }

  /// Who joins, and with what.
  public struct Joining {
    public var isolation = MachineIsolation.none
    public var regions: [LinkRegion] = []
    /// The memory files that the regions lie in.
    public var files: [Int32] = []
    /// An eventfd for each virtual processor.
    public var interrupts: [Int32] = []
    /// As many again, which the host signals and a paravisor listens to; or none.
    public var hostInterrupts: [Int32] = []
    /// The address bit of host-visible memory, or 0.
    public var boundaryBit: UInt8 = 0
    public var vtl: UInt8 = 0

    public init() {}
  }

  public func join(_ joining: Joining) throws(LinkError) {
    var join = LinkJoin()
    join.isolation = joining.isolation
    join.boundaryBit = joining.boundaryBit
    join.processorCount = UInt16(clamping: joining.interrupts.count)
    join.regionCount = UInt16(clamping: joining.regions.count)
    join.fileCount = UInt16(clamping: joining.files.count)
    join.vtl = joining.vtl
    join.hasHostInterrupts = joining.hostInterrupts.isEmpty ? 0 : 1
    try checkedCall(
      .join, join.wireBytes + joining.regions.flatMap(\.wireBytes),
      descriptors: joining.files + joining.interrupts + joining.hostInterrupts)
  }

  /// Asks a paravisor, or a host, for this guest's own way to its host.
  ///
  /// - Throws: `refused` by a paravisor that has no host.
  public func openHostLink() throws(LinkError) -> OwnedDescriptor {
    let answer = try call(.openHostLink, [])
    guard answer.status == .success else { throw .refused(answer.status) }
    guard let descriptor = answer.message.takeDescriptor(0) else { throw .hostGone }
    return descriptor
  }

  /// Makes pages host-visible, or private again. What they held is gone.
  public func setVisibility(
    firstPage: GPN, pageCount: Int, isHostVisible: Bool
  ) throws(LinkError) {
    var change = LinkVisibility()
    change.firstPage = firstPage
    change.pageCount = UInt64(clamping: pageCount)
    change.isHostVisible = isHostVisible ? 1 : 0
    try checkedCall(.setVisibility, change.wireBytes)
  }

  /// What a CPUID leaf says in this machine; nil where nobody answers it.
  public func leaf(_ number: UInt32) throws(LinkError) -> CPUIDLeaf? {
    let answer = try call(.readLeaf, LinkNumber(number).wireBytes)
    guard answer.status == .success else { return nil }
    let body = Array(answer.message.bytes.dropFirst(LinkAnswer.byteCount))
    return (try? LinkLeaf(parsing: body))?.leaf
  }

  /// Tells the registers SIMP and SIEFP of a processor; nil for a page that is not enabled.
  public func setSynIC(
    processor: Int, messagePage: GPN?, eventFlagsPage: GPN?
  ) throws(LinkError) {
    var registers = LinkSynIC()
    registers.processor = UInt32(clamping: processor)
    registers.messagePage = messagePage ?? LinkSynIC.noPage
    registers.eventFlagsPage = eventFlagsPage ?? LinkSynIC.noPage
    try checkedCall(.setSynIC, registers.wireBytes)
  }

  /// The hypercall HvPostMessage, with at most 240 bytes.
  public func postMessage(
    connectionID: UInt32, messageType: UInt32, _ payload: [UInt8]
  ) throws(LinkError) -> HypercallStatus {
    var post = LinkPost()
    post.connectionID = connectionID
    post.messageType = messageType
    post.payloadByteCount = UInt32(clamping: payload.count)
    return try call(.postMessage, post.wireBytes + payload).status
  }

  /// Tells the page of a processor's GHCB.
  public func setGHCB(processor: Int, page: GPN) throws(LinkError) {
    var message = LinkPage()
    (message.processor, message.page) = (UInt32(clamping: processor), page)
    try checkedCall(.setGHCB, message.wireBytes)
  }

  /// Has the host look at a processor's GHCB.
  public func vmgexit(processor: Int) throws(LinkError) {
    try checkedCall(.vmgexit, LinkNumber(UInt32(clamping: processor)).wireBytes)
  }

  /// A hypercall past the paravisor of a TDX machine.
  public func tdcall(input: UInt64, parameter: UInt64) throws(LinkError) -> HypercallStatus {
    var message = LinkHypercall()
    (message.input, message.parameter) = (input, parameter)
    return try call(.tdcall, message.wireBytes).status
  }

  /// The register EOM.
  public func endOfMessage(processor: Int) throws(LinkError) {
    _ = try call(.endOfMessage, LinkNumber(UInt32(clamping: processor)).wireBytes)
  }

  /// An eventfd whose signal is the hypercall HvSignalEvent with that connection id, as long as
  /// this guest lives.
  public func bindEvent(_ connectionID: UInt32) throws(LinkError) -> OwnedDescriptor {
    let answer = try call(.bindEvent, LinkNumber(connectionID).wireBytes)
    guard answer.status == .success else { throw .refused(answer.status) }
    guard let descriptor = answer.message.takeDescriptor(0) else { throw .hostGone }
    return descriptor
  }

  private func checkedCall(
    _ call: LinkCall, _ body: [UInt8], descriptors: [Int32] = []
  ) throws(LinkError) {
    let status = try self.call(call, body, descriptors: descriptors).status
    guard status == .success else { throw .refused(status) }
  }

  /// One call and its answer.
  private func call(
    _ call: LinkCall, _ body: [UInt8], descriptors: [Int32] = []
  ) throws(LinkError) -> (status: HypercallStatus, message: SocketMessage) {
    let bytes = LinkHeader(call).wireBytes + body
    let received = socket.withLock { socket -> SocketMessage? in
      do throws(Errno) {
        try socket.send(bytes, descriptors: descriptors)
        return try socket.receive()
      } catch {
        // A late answer would be taken for the next call's: this connection is over.
        socket.shutDown()
        return nil
      }
    }
    guard let message = received, let answer = try? LinkAnswer(parsing: message.bytes) else {
      throw .hostGone
    }
    return (answer.status, message)
  }
}
