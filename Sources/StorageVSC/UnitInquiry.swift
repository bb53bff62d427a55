// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
import VSC

/// The commands that ask a unit what it is, as a value without I/O.
struct UnitInquiry {
  enum Step {
    /// Execute; the outcome goes to `answered`.
    case command(SCSICommand, byteCount: Int)
    case ready(DiskInformation)
  }

  private enum Question: Equatable {
    case inquiry, capacity16, capacity10, mode, pages, serial, limits, characteristics
    case provisioning
  }

  /// Bytes of the largest answer.
  static let maximumAnswerByteCount = 255

  private var question = Question.inquiry
  private var information = DiskInformation()
  private var repetitions = 0
  private let lun: UInt8
  private let maximumTransfer: Int
  private var provisioningPage: DiskProvisioningPage?
  private var limitsPage: BlockLimits?
  /// The pages of vital product data that are to be asked for yet.
  private var pages: [Question] = []

  /// - Parameter maximumTransfer: bytes that the host and a packet allow.
  init(lun: UInt8, version: StorageVersion, maximumTransfer: Int) {
    self.lun = lun
    self.maximumTransfer = maximumTransfer
    information.version = version
    information.protocolName = "\(version)"
  }

  mutating func begin() -> Step { ask(.inquiry) }

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
      try takeCapacity(capacity.lastBlock, capacity.blockSize)
      let physical = information.geometry.blockByteCount << Int(capacity.exponents & 0xF)
      if physical <= 1 << 20 { information.geometry.physicalBlockByteCount = physical }
      information.provisioning.readsZeros = capacity.provisioning & 0xC0 == 0xC0
      return ask(.mode)
    case .capacity10:
      let capacity: Capacity10 = try parse(answer)
      try takeCapacity(UInt64(capacity.lastBlock), capacity.blockSize)
      return ask(.mode)
    case .mode:
      takeMode(answer)
      return ask(.pages)
    case .pages: takePages(answer)
    case .serial:
      // A disk need not know these pages, so a bad answer is none.
      var reader = WireReader(answer, name: "unit serial number")
      if let header = try? reader.read(VitalProductDataHeader.self), header.page == 0x80,
        let serial = try? reader.take(min(Int(header.length), reader.remaining))
      {
        information.serial = text(serial)
      }
    case .limits:
      if let page = try? BlockLimits(parsing: answer), page.header.page == 0xB0 {
        limitsPage = page
      }
    case .characteristics:
      if let page = try? DiskCharacteristicsPage(parsing: answer), page.header.page == 0xB1,
        page.rotationRate > 0
      {
        information.isRotating = page.rotationRate > 1
      }
    case .provisioning:
      if let page = try? DiskProvisioningPage(parsing: answer), page.header.page == 0xB2 {
        provisioningPage = page
      }
    }
    return next()
  }

  private func parse<Answer: WireLayout>(_ bytes: RawSpan) throws(StorageError) -> Answer {
    do throws(WireError) { return try Answer(parsing: bytes) } catch { throw .malformed(error) }
  }

  /// What a question that failed means.
  private mutating func without(_ error: StorageError) throws(StorageError) -> Step {
    // A disk that goes while it is asked is no disk without the rest of the pages.
    if error.isUnitGone { throw .noDisk(lun: lun) }
    switch question {
    case .inquiry, .capacity10: throw error
    case .capacity16:
      guard case .failed(_, _, let sense) = error, sense?.key == .illegalRequest else {
        throw error
      }
      return ask(.capacity10)
    case .mode: return ask(.pages)
    case .pages: pages = [.serial]
    case .serial, .limits, .characteristics, .provisioning: break
    }
    return next()
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
  ) throws(StorageError) {
    information.geometry = try DiskGeometry(
      lastBlock: lastBlock, blockSize: blockSize, maximumTransfer: maximumTransfer)
  }

  private mutating func takeMode(_ answer: RawSpan) {
    guard let header = try? ModeHeader6(parsing: answer) else { return }
    information.isReadOnly = header.parameters.contains(.writeProtected)
    information.supportsForcedWrites = header.parameters.contains(.forcedAccess)
    var reader = WireReader(answer, name: "mode pages")
    let start = ModeHeader6.byteCount + Int(header.blockDescriptorLength)
    guard (try? reader.take(start)) != nil else { return }
    // Each page is at least two bytes, so this ends.
    while reader.remaining >= 3, let code = try? reader.read(UInt8.self),
      let length = try? reader.read(UInt8.self),
      let page = try? reader.take(min(Int(length), reader.remaining))
    {
      if code & 0x7F == 0x08, page.byteCount > 0 {
        var content = WireReader(page, name: "caching page")
        information.hasWriteCache = (try? content.read(UInt8.self)).map { $0 & 0x04 != 0 }
      }
    }
  }

  private mutating func takePages(_ answer: RawSpan) {
    pages = [.serial]
    var reader = WireReader(answer, name: "list of pages")
    guard let header = try? reader.read(VitalProductDataHeader.self), header.page == 0,
      var list = try? reader.take(min(Int(header.length), reader.remaining))
    else { return }
    pages = []
    while list.byteCount > 0 {
      switch unsafe list.unsafeLoad(as: UInt8.self) {
      case 0x80: pages.append(.serial)
      case 0xB0: pages.append(.limits)
      case 0xB1: pages.append(.characteristics)
      case 0xB2: pages.append(.provisioning)
      default: break
      }
      list = list.extracting(droppingFirst: 1)
    }
  }

  /// The next page, or the end.
  private mutating func next() -> Step {
    if !pages.isEmpty { return ask(pages.removeFirst()) }
    if let page = provisioningPage { information.provisioning.take(page) }
    if let page = limitsPage {
      information.geometry.limit(to: page)
      information.provisioning.take(page)
    } else {
      // Without limits nothing is said about UNMAP's.
      information.provisioning.canUnmap = false
    }
    return .ready(information)
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
    case .pages: return vitalProductData(0x00)
    case .serial: return vitalProductData(0x80)
    case .limits: return vitalProductData(0xB0)
    case .characteristics: return vitalProductData(0xB1)
    case .provisioning: return vitalProductData(0xB2)
    }
  }

  private func vitalProductData(_ page: UInt8) -> Step {
    let count = UnitInquiry.maximumAnswerByteCount
    return .command(
      .inquiry(vitalProductData: true, page: page, allocationLength: UInt32(count)),
      byteCount: count)
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
