// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VSC

/// The start-up of a channel as a value without I/O: the protocol's negotiation, then, where one
/// disk is meant, the commands that ask it what it is.
struct StorageStartup {
  enum Step {
    /// Send in-band, completion requested; its payload goes to `negotiated`.
    case send(StorageNegotiation.Packet)
    /// The protocol is agreed on. Without a disk that is all.
    case negotiated(StorageCapabilities)
    /// Execute; the outcome goes to `answered`.
    case command(SCSICommand, byteCount: Int)
    case ready(DiskInformation)
  }

  private var negotiation = StorageNegotiation()
  private var inquiry: UnitInquiry?

  mutating func begin() throws(StorageError) -> Step {
    do throws(StorageProtocolError) {
      return try step(negotiation.start())
    } catch {
      throw .refused(error)
    }
  }

  mutating func negotiated(_ payload: RawSpan) throws(StorageError) -> Step {
    do throws(StorageProtocolError) {
      return try step(negotiation.completion(payload))
    } catch {
      throw .refused(error)
    }
  }

  private func step(_ step: StorageNegotiation.Step) -> Step {
    switch step {
    case .send(let packet): .send(packet)
    case .ready(let capabilities): .negotiated(capabilities)
    }
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
