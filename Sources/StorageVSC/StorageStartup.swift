// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
import VSC

/// The start-up of a primary channel as a value without I/O: the protocol's negotiation, the wish
/// for subchannels, then, where one disk is meant, the commands that ask it what it is.
struct StorageStartup {
  enum Step {
    /// Send in-band, completion requested; its payload goes to `negotiated`.
    case send(StorageNegotiation.Packet)
    /// The protocol is agreed on. Without a disk that is all.
    case agreed(StorageAgreement)
    /// Execute; the outcome goes to `answered`.
    case command(SCSICommand, byteCount: Int)
    case ready(DiskInformation)
  }

  private var negotiation = StorageNegotiation()
  private var inquiry: UnitInquiry?
  private var wanted: Int
  /// While the host is asked for subchannels.
  private var asking: StorageAgreement?

  /// - Parameter subchannels: that are wanted.
  init(subchannels: Int) { wanted = subchannels }

  mutating func begin() throws(StorageError) -> Step {
    do throws(StorageProtocolError) {
      return try step(negotiation.start())
    } catch {
      throw .refused(error)
    }
  }

  mutating func negotiated(_ payload: RawSpan) throws(StorageError) -> Step {
    if let asking { return try granted(asking, payload) }
    do throws(StorageProtocolError) {
      return try step(negotiation.completion(payload))
    } catch {
      throw .refused(error)
    }
  }

  private mutating func step(_ step: StorageNegotiation.Step) -> Step {
    switch step {
    case .send(let packet): return .send(packet)
    case .ready(let capabilities):
      var agreement = StorageAgreement(capabilities)
      let count = min(wanted, Int(capabilities.maximumSubchannels))
      guard count > 0, capabilities.isMultiChannel else { return .agreed(agreement) }
      // Once for each opening of the device, and after the negotiation.
      agreement.subchannelCount = count
      asking = agreement
      return .send(StorageNegotiation.createSubchannels(UInt16(clamping: count)))
    }
  }

  /// A host that grants none has a primary channel that does all the work.
  private mutating func granted(
    _ agreement: StorageAgreement, _ payload: RawSpan
  ) throws(StorageError) -> Step {
    var agreement = agreement
    asking = nil
    let header: StoragePacketHeader
    do throws(WireError) {
      header = try StoragePacketHeader(parsing: payload)
    } catch {
      throw .malformed(error)
    }
    guard header.operation == .completeIO else {
      throw .refused(.unexpectedOperation(header.operation))
    }
    if header.status != .success { agreement.subchannelCount = 0 }
    return .agreed(agreement)
  }

  /// Begins to ask a disk what it is.
  ///
  /// - Parameter maximumTransfer: bytes that the host and a packet allow.
  mutating func inquire(_ lun: UInt8, _ version: StorageVersion, maximumTransfer: Int) -> Step {
    var inquiry = UnitInquiry(lun: lun, version: version, maximumTransfer: maximumTransfer)
    defer { self.inquiry = inquiry }
    return step(inquiry.begin())
  }

  mutating func answered(
    _ result: Result<Int, StorageError>, _ answer: RawSpan
  ) throws(StorageError) -> Step {
    guard var inquiry else { throw .notReady }
    defer { self.inquiry = inquiry }
    return step(try inquiry.answered(result, answer))
  }

  private func step(_ step: UnitInquiry.Step) -> Step {
    switch step {
    case .command(let command, let byteCount): .command(command, byteCount: byteCount)
    case .ready(let information): .ready(information)
    }
  }
}

/// What a primary channel and its host agreed on: what the queue of a subchannel begins with.
public struct StorageAgreement: Sendable {
  let capabilities: StorageCapabilities
  /// Subchannels that the host has granted, and offers.
  public internal(set) var subchannelCount = 0
  /// The disk, for a queue that drives one.
  public internal(set) var disk: DiskInformation?

  init(_ capabilities: StorageCapabilities) { self.capabilities = capabilities }
}
