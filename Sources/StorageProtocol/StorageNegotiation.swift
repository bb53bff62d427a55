// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What a client may rely on once the channel is ready.
public struct StorageCapabilities: Equatable, Sendable {
  public var version: StorageVersion
  /// Bytes that one request may move.
  public var maximumTransferBytes: UInt32
  /// Subchannels that may be asked for; zero without `isMultiChannel`.
  public var maximumSubchannels: UInt16
  public var isMultiChannel: Bool

  public init(
    version: StorageVersion, maximumTransferBytes: UInt32, maximumSubchannels: UInt16 = 0,
    isMultiChannel: Bool = false
  ) {
    self.version = version
    self.maximumTransferBytes = maximumTransferBytes
    self.maximumSubchannels = maximumSubchannels
    self.isMultiChannel = isMultiChannel
  }
}

/// The client's start-up on the primary channel: which packet to send next, and when to stop.
///
/// A value without I/O. The owner sends each packet that a step holds in-band with a completion
/// requested, and gives back the completion's payload. After an error the negotiation is over:
/// the channel has to be closed and opened again.
public struct StorageNegotiation: Sendable {
  /// One packet of the start-up: 64 bytes, whatever the version will be, because a host answers
  /// with no more bytes than it was asked with.
  public typealias Packet = InlineArray<64, UInt8>

  public enum Step: Sendable {
    case send(Packet)
    case ready(StorageCapabilities)
  }

  /// What the negotiation waits for.
  public enum Stage: Equatable, Sendable {
    case idle
    case beginning
    case askingVersion(StorageVersion)
    case askingProperties(StorageVersion)
    case ending(StorageCapabilities)
    case ready(StorageCapabilities)
    case failed
  }

  public private(set) var stage = Stage.idle

  /// The smallest transfer limit that can carry one block of any size that a disk has.
  public static let smallestTransferLimit: UInt32 = 4096

  /// Before a version is agreed on, a host of an old one answers with its own, shorter packets.
  private static var smallestPacketByteCount: Int { StorageVersion.windowsVista.packetByteCount }

  public init() {}

  /// Begins. Only the first event may be this one.
  public mutating func start() throws(StorageProtocolError) -> Step {
    guard stage == .idle else {
      stage = .failed
      throw .alreadyStarted
    }
    stage = .beginning
    return .send(StorageNegotiation.packet(.beginInitialization))
  }

  /// Takes the completion of the packet that was sent last.
  public mutating func completion(_ payload: RawSpan) throws(StorageProtocolError) -> Step {
    do {
      return try advance(payload)
    } catch {
      stage = .failed
      throw error
    }
  }

  private mutating func advance(_ payload: RawSpan) throws(StorageProtocolError) -> Step {
    switch stage {
    case .idle, .ready, .failed:
      throw .unexpectedCompletion
    case .beginning:
      _ = try accept(payload, of: .beginInitialization, StorageNegotiation.smallestPacketByteCount)
      return ask(.windows10)
    case .askingVersion(let version):
      let reply = try Reply(payload, StorageNegotiation.smallestPacketByteCount)
      guard reply.header.status == .success else {
        // Hosts name different reasons for a version that they do not know.
        guard let next = version.next else { throw .noCommonVersion(reply.header.status) }
        return ask(next)
      }
      stage = .askingProperties(version)
      return .send(StorageNegotiation.packet(.queryProperties))
    case .askingProperties(let version):
      let properties =
        try accept(payload, of: .queryProperties, version.packetByteCount).properties
      let limit = properties.maximumTransferBytes
      guard limit >= StorageNegotiation.smallestTransferLimit else {
        throw .unusableTransferLimit(limit)
      }
      let isMultiChannel = properties.flags.contains(.multiChannel)
      stage = .ending(
        StorageCapabilities(
          version: version, maximumTransferBytes: limit,
          maximumSubchannels: isMultiChannel ? properties.maximumSubchannels : 0,
          isMultiChannel: isMultiChannel))
      return .send(StorageNegotiation.packet(.endInitialization))
    case .ending(let capabilities):
      _ = try accept(payload, of: .endInitialization, capabilities.version.packetByteCount)
      stage = .ready(capabilities)
      return .ready(capabilities)
    }
  }

  private mutating func ask(_ version: StorageVersion) -> Step {
    stage = .askingVersion(version)
    var packet = StorageNegotiation.packet(.queryProtocolVersion)
    StorageProtocolVersion(version).write(into: &packet, at: StoragePacketHeader.byteCount)
    return .send(packet)
  }

  private func accept(
    _ payload: RawSpan, of operation: StorageOperation, _ byteCount: Int
  ) throws(StorageProtocolError) -> Reply {
    let reply = try Reply(payload, byteCount)
    guard reply.header.status == .success else {
      throw .refused(operation, reply.header.status)
    }
    return reply
  }

  private static func packet(_ operation: StorageOperation) -> Packet {
    var packet = Packet(repeating: 0)
    StoragePacketHeader(operation, flags: .requestCompletion).write(into: &packet)
    return packet
  }

  /// A completion that has the size and the operation of one.
  private struct Reply {
    let header: StoragePacketHeader
    let properties: StorageChannelProperties

    init(_ payload: RawSpan, _ needed: Int) throws(StorageProtocolError) {
      guard payload.byteCount >= needed else {
        throw .malformed(
          .tooShort("StorageCompletion", needed: needed, found: payload.byteCount))
      }
      do {
        var reader = WireReader(payload, name: "StorageCompletion")
        header = try reader.read()
        properties = try reader.read()
      } catch {
        throw .malformed(error)
      }
      guard header.operation == .completeIO else {
        throw .unexpectedOperation(header.operation)
      }
    }
  }
}

/// Why a storage channel's start-up ended without a usable channel.
public enum StorageProtocolError: Error, Equatable, Sendable {
  /// The bytes of a completion do not have its shape.
  case malformed(WireError)
  /// A completion carries another operation than COMPLETE_IO.
  case unexpectedOperation(StorageOperation)
  /// A completion came that nothing was sent for.
  case unexpectedCompletion
  /// The owner started a negotiation twice.
  case alreadyStarted
  /// The host refused a step of the start-up.
  case refused(StorageOperation, NTStatus)
  /// The host refused every version that this client speaks; its last reason.
  case noCommonVersion(NTStatus)
  /// The host would move fewer bytes at once than one block may have.
  case unusableTransferLimit(UInt32)
}

extension StorageProtocolError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .malformed(let error): "storage: \(error)"
    case .unexpectedOperation(let operation): "storage: a completion that says \(operation)"
    case .unexpectedCompletion: "storage: a completion that nothing was sent for"
    case .alreadyStarted: "storage: the start-up has begun already"
    case .refused(let operation, let status): "storage: the host refused \(operation): \(status)"
    case .noCommonVersion(let status):
      "storage: the host refused versions 6.2, 6.0, 5.1, 4.2 and 2.0: \(status)"
    case .unusableTransferLimit(let limit):
      "storage: the host moves at most \(limit) bytes at once, and a block may have 4096"
    }
  }
}
