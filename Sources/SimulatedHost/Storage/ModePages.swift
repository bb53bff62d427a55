// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Synchronization
import VMBus

/// The mode pages of a disk: caching and control. They are kept in memory only, so none is saved.
private enum ModePage: UInt8, CaseIterable {
  case caching = 0x08
  case control = 0x0A

  /// Bytes, header and all.
  var byteCount: Int { self == .caching ? 20 : 12 }

  /// The bits that MODE SELECT can change, all of them in the third byte.
  var changeable: UInt8 { self == .caching ? CachingPage.writeCache : Self.descriptorSense }
  static let descriptorSense: UInt8 = 0x04

  /// - Parameter control: 0 current, 1 changeable, 2 default values.
  func byte(_ index: Int, _ mode: SCSIDiskMode, control: UInt8) -> UInt8 {
    switch index {
    case 0: return rawValue
    case 1: return UInt8(byteCount - 2)
    case 2:
      if control == 1 { return changeable }
      let mode = control == 2 ? SCSIDiskMode.initial : mode
      return mode.contains(self == .caching ? .writeCache : .descriptorSense) ? changeable : 0
    // Commands may be executed in any order (QUEUE ALGORITHM MODIFIER), and a timeout that there is
    // none of (BUSY TIMEOUT PERIOD: unlimited).
    case 3 where self == .control && control != 1: return 0x10
    case 8, 9: return self == .control && control != 1 ? 0xFF : 0
    default: return 0
    }
  }
}

extension SCSIDisk {
  /// One page, or all, behind their header.
  func modePages(_ sense: SCSIModeSense) -> SCSIAnswer? {
    let isAll = sense.page == 0x3F && (sense.subpage == 0 || sense.subpage == 0xFF)
    let mode = currentMode
    var pages = SCSIAnswer()
    var count = 0
    for page in ModePage.allCases
    where isAll || page.rawValue == sense.page && sense.subpage == 0 {
      for index in 0..<page.byteCount {
        pages.append(page.byte(index, mode, control: sense.control))
      }
      count &+= page.byteCount
    }
    guard count > 0 else { return nil }
    var parameters: SCSIModeParameters = .forcedAccess
    if image.isReadOnly { parameters.formUnion(.writeProtected) }
    var answer = SCSIAnswer()
    if sense.isLong {
      var header = ModeHeader10()
      header.length = UInt16(ModeHeader10.byteCount + count - 2)
      header.parameters = parameters
      answer.append(header)
    } else {
      var header = ModeHeader6()
      header.length = UInt8(ModeHeader6.byteCount + count - 1)
      header.parameters = parameters
      answer.append(header)
    }
    for index in 0..<count { answer.append(pages.bytes[index]) }
    return answer
  }

  /// MODE SELECT: all of the list is looked at before anything changes.
  func selectMode<Data: ExternalData & ~Copyable & ~Escapable>(
    _ select: SCSIModeSelect, for client: SCSIClient, limit: UInt32, from data: inout Data
  ) -> SCSIOutcome {
    guard !select.savesPages else { return .invalidField(byte: 1, bit: 0) }
    guard select.isPageFormat else { return .invalidField(byte: 1, bit: 4) }
    guard select.listLength > 0 else { return .good(0) }
    guard select.listLength <= limit else { return .invalidRequest }
    // No lawful list is longer: the header, a block descriptor, each page once.
    var list = InlineArray<64, UInt8>(repeating: 0)
    guard Int(select.listLength) <= list.count else { return .check(.listLength) }
    do throws(ExternalDataError) {
      var span = list.mutableSpan
      var target = unsafe span.mutableBytes
      try data.read(into: &target, count: Int(select.listLength))
    } catch {
      return .invalidRequest
    }
    let span = list.span
    // Safe: any bit pattern is a UInt8.
    let bytes = unsafe span.bytes.extracting(first: Int(select.listLength))
    do throws(SCSIRefusal) {
      let before = currentMode
      let chosen = try parseMode(bytes, isLong: select.isLong, before)
      guard chosen != before else { return .good(select.listLength) }
      mode.store(chosen.rawValue, ordering: .relaxed)
      if !chosen.contains(.writeCache) {
        do throws(BlockError) { try image.flush() } catch {
          return SCSIOutcome(error, medium: .writeError)
        }
      }
      // The pages are shared, so the other guests are told.
      client.tellOthers(.modeParametersChanged)
      return .good(select.listLength)
    } catch {
      return SCSIOutcome(error)
    }
  }

  private func parseMode(
    _ bytes: RawSpan, isLong: Bool, _ before: SCSIDiskMode
  ) throws(SCSIRefusal) -> SCSIDiskMode {
    var reader = BigEndianReader(bytes)
    try reader.skip(isLong ? 7 : 3)
    let descriptorLength = Int(try reader.byte())
    // The capacity can't be chosen: no block descriptor, which is what MODE SENSE gives.
    guard descriptorLength == 0 else {
      throw .sense(.invalidParameterField, .parameter(byte: isLong ? 7 : 3))
    }
    var chosen = before
    while reader.remaining > 0 {
      let start = UInt16(truncatingIfNeeded: bytes.byteCount &- reader.remaining)
      guard let page = ModePage(rawValue: try reader.byte()) else {
        throw .sense(.invalidParameterField, .parameter(byte: start))
      }
      guard Int(try reader.byte()) == page.byteCount - 2 else {
        throw .sense(.invalidParameterField, .parameter(byte: start &+ 1))
      }
      for index in 2..<page.byteCount {
        let byte = try reader.byte()
        let fixed = page.byte(index, before, control: 0)
        let mask = page.byte(index, before, control: 1)
        guard (byte ^ fixed) & ~mask == 0 else {
          throw .sense(
            .invalidParameterField, .parameter(byte: start &+ UInt16(truncatingIfNeeded: index)))
        }
        guard mask != 0 else { continue }
        let option: SCSIDiskMode = page == .caching ? .writeCache : .descriptorSense
        if byte & mask != 0 { chosen.insert(option) } else { chosen.remove(option) }
      }
    }
    return chosen
  }
}
