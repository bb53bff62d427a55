// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The provider's end of one opened storage channel: its start-up, and each request after it.
///
/// A value without I/O of its own. The host's channel code gives it each packet of the guest and
/// sends the completion that it writes. A session ends with the channel.
public struct StorVSPSession: Sendable {
  /// What the guest has to send next.
  public enum Stage: Equatable, Sendable {
    case begin
    case version
    case properties
    case end
    case ready
  }

  /// What a packet led to, beside its completion.
  public enum Event: Equatable, Sendable {
    case none
    /// The start-up is over: subchannels may be served.
    case ready(StorageVersion)
    /// The guest wants so many subchannels offered, at least one.
    case createSubchannels(UInt16)
    /// A unit was reset; nil: all of them.
    case reset(lun: UInt8?)
    /// The completion is to be sent after the next reset, not before.
    case held
  }

  public struct Result: Equatable, Sendable {
    /// Bytes of the completion to send.
    public var byteCount: Int
    public var event: Event
  }

  /// A completion: as long as the longest packet of any version.
  public typealias Completion = InlineArray<64, UInt8>

  public private(set) var stage = Stage.begin
  /// The version that the guest and this session speak, once it is known.
  public private(set) var version: StorageVersion?

  /// The newest version that is accepted.
  public let newestVersion: StorageVersion
  /// Subchannels that the guest may ask for.
  public let maximumSubchannels: UInt16
  private var hasCreatedSubchannels = false

  /// Whether this is a subchannel, which has no start-up of its own.
  private let isSubchannel: Bool

  /// By default as the OpenHCL paravisor: 6.0 at most.
  public init(newestVersion: StorageVersion = .windows81, maximumSubchannels: UInt16 = 0) {
    self.newestVersion = newestVersion
    self.maximumSubchannels = maximumSubchannels
    isSubchannel = false
  }

  /// A subchannel: it executes requests as soon as the primary channel is ready, and nothing else.
  public static var subchannel: StorVSPSession { StorVSPSession(isSubchannel: true) }

  private init(isSubchannel: Bool) {
    newestVersion = .windows81
    maximumSubchannels = 0
    self.isSubchannel = isSubchannel
  }

  /// Answers one packet of the guest.
  ///
  /// An error means that the guest broke the protocol: the channel's worker ends, and the channel
  /// stays as it is until the guest closes it.
  ///
  /// - Parameters:
  ///   - packet: a private copy of the packet's payload.
  ///   - isTransactional: whether the packet's descriptor asks for a completion.
  ///   - target: the disks, and the guest, which learns of the start-up's end.
  ///   - completion: receives the completion's payload.
  public mutating func handle<Data: ExternalData & ~Copyable & ~Escapable>(
    _ packet: RawSpan, isTransactional: Bool, data: inout Data,
    target: borrowing SCSITarget, completion: inout Completion
  ) throws(StorVSPError) -> Result {
    guard isTransactional else { throw .notTransactional }
    completion = Completion(repeating: 0)
    var reader = WireReader(packet, name: "StoragePacket")
    let operation = try StorVSPError.wrap { () throws(WireError) in
      try reader.read(StoragePacketHeader.self).operation
    }
    let byteCount = StorVSPSession.completionByteCount(for: packet.byteCount)
    let ready = isSubchannel ? target.nexus.version : stage == .ready ? version : nil
    if operation == .executeSRB, let ready {
      let isAnswered = try execute(
        reader.rest, ready, data: &data, target: target, &completion)
      return Result(byteCount: byteCount, event: isAnswered ? .none : .held)
    }
    let properties = StorageChannelProperties(
      of: target, version: version, subchannels: maximumSubchannels)
    let reply =
      isSubchannel
      ? try controlSubchannel(operation) : try control(operation, reader.rest, properties)
    switch reply.event {
    case .ready(let version): target.nexus.setReady(version)
    case .reset(let lun): target.reset(lun: lun)
    case .none, .createSubchannels, .held: break
    }
    StoragePacketHeader(.completeIO, status: reply.status).write(into: &completion)
    switch reply.body {
    case .none: break
    case .version(let body): body.write(into: &completion, at: StoragePacketHeader.byteCount)
    case .properties(let body): body.write(into: &completion, at: StoragePacketHeader.byteCount)
    }
    return Result(byteCount: byteCount, event: reply.event)
  }

  /// A guest expects the longest packet of its version, but has room for no more than it sent:
  /// the request's bytes as the ring rounds them, at most 64.
  static func completionByteCount(for requestByteCount: Int) -> Int {
    requestByteCount >= Completion.count
      ? Completion.count : (requestByteCount &+ 7) & ~7
  }

  /// - Returns: whether the completion is to be sent now.
  private func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ body: RawSpan, _ version: StorageVersion, data: inout Data,
    target: borrowing SCSITarget, _ completion: inout Completion
  ) throws(StorVSPError) -> Bool {
    var request = try StorVSPError.wrap { () throws(WireError) in
      try SCSIRequest(parsing: body, version: version)
    }
    guard UInt64(request.transferLength) <= UInt64(data.byteCount) else {
      throw .dataTooShort(needed: request.transferLength, found: data.byteCount)
    }
    let isAnswered = target.execute(&request, version: version, data: &data)
    StoragePacketHeader(.completeIO, status: request.srbStatus.packetStatus)
      .write(into: &completion)
    if version.requestByteCount == SCSIRequest.byteCount {
      request.write(into: &completion, at: StoragePacketHeader.byteCount)
    } else {
      SCSIRequest.Short(request).write(into: &completion, at: StoragePacketHeader.byteCount)
    }
    return isAnswered
  }
}

extension StorVSPSession {
  private struct Reply {
    enum Body {
      case none
      case version(StorageProtocolVersion)
      case properties(StorageChannelProperties)
    }

    var status = NTStatus.success
    var body = Body.none
    var event = Event.none
  }

  /// Everything but the execution of requests.
  private mutating func control(
    _ operation: StorageOperation, _ body: RawSpan, _ properties: StorageChannelProperties
  ) throws(StorVSPError) -> Reply {
    switch (operation, stage) {
    case (.beginInitialization, .begin):
      stage = .version
      return Reply()
    case (.queryProtocolVersion, .version):
      return try negotiate(body)
    case (.queryProperties, .properties):
      stage = .end
      return Reply(body: .properties(properties))
    case (.endInitialization, .end):
      stage = .ready
      return Reply(event: version.map { .ready($0) } ?? .none)
    case (.createSubchannels, .end), (.createSubchannels, .ready):
      return try createSubchannels(body, maximum: properties.maximumSubchannels)
    case (.resetLUN, .ready):
      // Requests are done one after the other, so none is left to abort but those that a fault holds.
      // A guest that names no unit means the first one.
      return Reply(event: .reset(lun: resetUnit(body)))
    case (.resetAdapter, .ready), (.resetBus, .ready):
      return Reply(event: .reset(lun: nil))
    case (.beginInitialization, _), (.queryProtocolVersion, _), (.queryProperties, _),
      (.endInitialization, _), (.createSubchannels, _), (.resetLUN, _), (.resetAdapter, _),
      (.resetBus, _), (.executeSRB, _):
      return Reply(status: .invalidDeviceState)
    default:
      throw .unknownOperation(operation)
    }
  }

  /// What a subchannel answers to everything but requests to a primary channel that is ready.
  private func controlSubchannel(
    _ operation: StorageOperation
  ) throws(StorVSPError) -> Reply {
    switch operation {
    case .beginInitialization, .queryProtocolVersion, .queryProperties, .endInitialization,
      .createSubchannels, .resetLUN, .resetAdapter, .resetBus, .executeSRB:
      return Reply(status: .invalidDeviceState)
    default:
      throw .unknownOperation(operation)
    }
  }

  /// RESET_LUN names its unit where a request does.
  private func resetUnit(_ body: RawSpan) -> UInt8 {
    guard let request = try? SCSIRequest.Short(parsing: body).request else { return 0 }
    return request.lun
  }

  /// A version that is not known is answered with the guest's own number, and it may try again.
  private mutating func negotiate(_ body: RawSpan) throws(StorVSPError) -> Reply {
    let asked = try StorVSPError.wrap { () throws(WireError) in
      try StorageProtocolVersion(parsing: body)
    }
    guard asked.version.isKnown, asked.version <= newestVersion else {
      return Reply(status: .revisionMismatch, body: .version(asked))
    }
    version = asked.version
    stage = .properties
    return Reply(body: .version(asked))
  }

  private mutating func createSubchannels(
    _ body: RawSpan, maximum: UInt16
  ) throws(StorVSPError) -> Reply {
    let count = try StorVSPError.wrap { () throws(WireError) in
      try StorageSubchannelRequest(parsing: body).count
    }
    guard !hasCreatedSubchannels else { return Reply(status: .invalidDeviceState) }
    guard count <= maximum else { return Reply(status: .invalidParameter) }
    hasCreatedSubchannels = true
    return Reply(event: count == 0 ? .none : .createSubchannels(count))
  }
}

extension StorageChannelProperties {
  fileprivate init(
    of target: borrowing SCSITarget, version: StorageVersion?, subchannels: UInt16
  ) {
    self.init()
    maximumTransferBytes = target.maximumTransferBytes
    guard let version, version.hasSubchannels, subchannels > 0 else { return }
    maximumSubchannels = subchannels
    flags = .multiChannel
  }
}

/// What a guest may not do on a storage channel: the channel's worker ends.
public enum StorVSPError: Error, Equatable, Sendable {
  case malformed(WireError)
  /// An operation that no guest sends.
  case unknownOperation(StorageOperation)
  /// A packet that asks for no completion.
  case notTransactional
  /// A request that claims more data than its packet carries.
  case dataTooShort(needed: UInt32, found: Int)

  fileprivate static func wrap<Value>(
    _ body: () throws(WireError) -> Value
  ) throws(StorVSPError) -> Value {
    do throws(WireError) {
      return try body()
    } catch {
      throw .malformed(error)
    }
  }
}

extension StorVSPError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .malformed(let error): "storage guest: \(error)"
    case .unknownOperation(let operation): "storage guest: sent \(operation)"
    case .notTransactional: "storage guest: a packet without a completion"
    case .dataTooShort(let needed, let found):
      "storage guest: a transfer of \(needed) bytes with \(found) bytes of data"
    }
  }
}
