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
  public init(path: String) throws(Errno) {
    let connected = try PacketSocket(connectingTo: path)
    _ = vmbus_set_receive_timeout(connected.rawValue, 30)
    descriptor = connected.rawValue
    socket = Lock(connected)
  }

  /// Ends the connection; all calls fail from then on.
  public func shutDown() { socket.withLock { $0.shutDown() } }

  /// Joins the host.
  ///
  /// - Parameters:
  ///   - files: the memory files that the regions lie in.
  ///   - interrupts: an eventfd for each virtual processor.
  public func join(
    _ isolation: MachineIsolation, _ regions: [LinkRegion], files: [Int32], interrupts: [Int32]
  ) throws(LinkError) {
    var join = LinkJoin()
    join.isolation = isolation
    join.processorCount = UInt16(clamping: interrupts.count)
    join.regionCount = UInt16(clamping: regions.count)
    join.fileCount = UInt16(clamping: files.count)
    try checkedCall(
      .join, join.wireBytes + regions.flatMap(\.wireBytes), descriptors: files + interrupts)
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
