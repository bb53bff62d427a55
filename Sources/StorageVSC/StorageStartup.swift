// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VSC

/// The start-up of a disk as a value without I/O: the protocol's negotiation, then the commands
/// that ask the disk what it is.
struct StorageStartup {
  enum Step {
    /// Send in-band, completion requested; its payload goes to `negotiated`.
    case send(StorageNegotiation.Packet)
    /// Execute; the outcome goes to `answered`.
    case command(SCSICommand, byteCount: Int)
    case ready(DiskInformation)
  }

  private enum Question {
    case inquiry, capacity16, capacity10, mode, serial
  }

  /// Bytes of the largest answer.
  static let maximumAnswerByteCount = 255

  private var negotiation = StorageNegotiation()
  private var maximumTransfer: UInt32 = 0
  private var question = Question.inquiry
  private var information = DiskInformation()
  private var repetitions = 0
  private let lun: UInt8

  init(lun: UInt8) { self.lun = lun }

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

  private mutating func step(_ step: StorageNegotiation.Step) -> Step {
    switch step {
    case .send(let packet):
      return .send(packet)
    case .ready(let capabilities):
      maximumTransfer = capabilities.maximumTransferBytes
      information.version = capabilities.version
      return ask(.inquiry)
    }
  }

  /// - Parameter answer: a private copy of the bytes that the disk sent.
  mutating func answered(
    _ result: Result<Int, StorageError>, _ answer: RawSpan
  ) throws(StorageError) -> Step {
    if case .failure(let error) = result {
      // A disk reports a reset or a change once, to the next command, whichever that is.
      if error.isTransient, repetitions < 5 {
        repetitions += 1
        return ask(question)
      }
      return try without(error)
    }
    switch question {
    case .inquiry: return try takeInquiry(parse(answer))
    case .capacity16:
      let capacity: Capacity16 = try parse(answer)
      return try takeCapacity(capacity.lastBlock, capacity.blockSize)
    case .capacity10:
      let capacity: Capacity10 = try parse(answer)
      return try takeCapacity(UInt64(capacity.lastBlock), capacity.blockSize)
    case .mode:
      // A disk need not know this, and the next, so a bad answer is none.
      if let parameters = try? ModeHeader6(parsing: answer).parameters {
        information.isReadOnly = parameters.contains(.writeProtected)
        information.supportsForcedWrites = parameters.contains(.forcedAccess)
      }
      return ask(.serial)
    case .serial:
      var reader = WireReader(answer, name: "unit serial number")
      if let header = try? reader.read(VitalProductDataHeader.self), header.page == 0x80,
        let serial = try? reader.take(min(Int(header.length), reader.remaining))
      {
        information.serial = text(serial)
      }
      return .ready(information)
    }
  }

  private func parse<Answer: WireLayout>(_ bytes: RawSpan) throws(StorageError) -> Answer {
    do throws(WireError) { return try Answer(parsing: bytes) } catch { throw .malformed(error) }
  }

  /// What a question that failed means.
  private mutating func without(_ error: StorageError) throws(StorageError) -> Step {
    switch question {
    case .inquiry, .capacity10:
      if case .failed(let status, _, _) = error,
        status.code == .invalidLUN || status.code == .noDevice
      {
        throw .noDisk(lun: lun)
      }
      throw error
    case .capacity16:
      guard case .failed(_, _, let sense) = error, sense?.key == .illegalRequest else {
        throw error
      }
      return ask(.capacity10)
    case .mode: return ask(.serial)
    case .serial: return .ready(information)
    }
  }

  private mutating func takeInquiry(_ data: InquiryData) throws(StorageError) -> Step {
    guard data.deviceType >> 5 == 0 else { throw .noDisk(lun: lun) }
    guard data.deviceType == 0 else { throw .notADisk(deviceType: data.deviceType & 0x1F) }
    unsafe information.vendor = text(data.vendor.span.bytes)
    unsafe information.product = text(data.product.span.bytes)
    unsafe information.revision = text(data.revision.span.bytes)
    return ask(.capacity16)
  }

  private mutating func takeCapacity(
    _ lastBlock: UInt64, _ blockSize: UInt32
  ) throws(StorageError) -> Step {
    information.geometry = try DiskGeometry(
      lastBlock: lastBlock, blockSize: blockSize, maximumTransfer: maximumTransfer)
    return ask(.mode)
  }

  private mutating func ask(_ question: Question) -> Step {
    if self.question != question { repetitions = 0 }
    self.question = question
    switch question {
    case .inquiry:
      return .command(
        .inquiry(vitalProductData: false, page: 0, allocationLength: 36), byteCount: 36)
    case .capacity16: return .command(.readCapacity16(allocationLength: 32), byteCount: 32)
    case .capacity10: return .command(.readCapacity10, byteCount: 8)
    case .mode:
      let sense = SCSIModeSense(isLong: false, page: 0x3F, allocationLength: 192)
      return .command(.modeSense(sense), byteCount: 192)
    case .serial:
      return .command(
        .inquiry(vitalProductData: true, page: 0x80, allocationLength: 255), byteCount: 255)
    }
  }
}

/// The printable characters of a peer's text, without the blanks around.
private func text(_ bytes: RawSpan) -> String {
  var result: [UInt8] = []
  for index in 0..<bytes.byteCount {
    let byte = unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
    result.append(byte >= 0x20 && byte < 0x7F ? byte : 0x20)
  }
  while result.last == 0x20 { result.removeLast() }
  return String(decoding: result.drop { $0 == 0x20 }, as: UTF8.self)
}
