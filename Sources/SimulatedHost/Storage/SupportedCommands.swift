// SPDX-License-Identifier: Apache-2.0

import StorageProtocol

extension SCSIDisk {
  /// REPORT SUPPORTED OPERATION CODES, out of the table that decides what is accepted.
  func reportCommands<Data: ExternalData & ~Copyable & ~Escapable>(
    _ request: SupportedCommandsRequest, limit: UInt32, to data: inout Data
  ) -> SCSIOutcome {
    var stream = SCSIStream(room: Int(min(request.allocationLength, limit)))
    do throws(ExternalDataError) {
      switch request.options {
      case 0:
        try listCommands(request, in: &stream, to: &data)
      case 1, 2, 3:
        let hasActions = SCSIUsage.hasActions(request.code)
        // A code is asked for in the form that it has.
        if request.options == 1, hasActions { return .invalidField(byte: 2, bit: 2) }
        if request.options == 2, !hasActions { return .invalidField(byte: 2, bit: 2) }
        try stream.append(describe(request), to: &data)
      default:
        return .invalidField(byte: 2, bit: 2)
      }
    } catch {
      return .invalidRequest
    }
    return .good(stream.moved)
  }

  private func listCommands<Data: ExternalData & ~Copyable & ~Escapable>(
    _ request: SupportedCommandsRequest, in stream: inout SCSIStream, to data: inout Data
  ) throws(ExternalDataError) {
    stream.skip(4)
    for code in UInt8.min...UInt8.max {
      for action in 0..<(SCSIUsage.hasActions(code) ? UInt8(32) : 1) {
        guard let usage = SCSIUsage.of(code, action: action) else { continue }
        var entry = SCSIAnswer()
        entry.append(code)
        entry.append(0)
        entry.appendShort(UInt16(usage.action ?? 0))
        entry.append(0)
        // A timeouts descriptor follows; this code has service actions.
        entry.append((request.wantsTimeouts ? 2 : 0) | (usage.action == nil ? 0 : 1))
        entry.appendShort(UInt16(truncatingIfNeeded: usage.byteCount))
        if request.wantsTimeouts { SCSIDisk.appendTimeouts(to: &entry) }
        try stream.append(entry, to: &data)
      }
    }
    var header = SCSIAnswer()
    header.appendWord(UInt32(truncatingIfNeeded: stream.end &- 4))
    try stream.put(header, at: 0, to: &data)
  }

  private func describe(_ request: SupportedCommandsRequest) -> SCSIAnswer {
    var answer = SCSIAnswer()
    answer.append(0)
    // Asked for without a service action, the field does not count.
    let action = request.options == 1 ? 0 : UInt8(exactly: request.action)
    guard
      let action, let usage = SCSIUsage.of(request.code, action: action),
      usage.action != nil || action == 0
    else {
      answer.append(1)
      answer.appendShort(0)
      return answer
    }
    // As the standard has it.
    answer.append((request.wantsTimeouts ? 0x80 : 0) | 3)
    answer.appendShort(UInt16(truncatingIfNeeded: usage.byteCount))
    for index in 0..<usage.byteCount {
      // The code and the service action stand in the mask as themselves.
      let mask = usage.mask(index)
      switch index {
      case 0: answer.append(request.code)
      case 1: answer.append(usage.action.map { mask & ~SCSIUsage.actionMask | $0 } ?? mask)
      default: answer.append(mask)
      }
    }
    if request.wantsTimeouts { SCSIDisk.appendTimeouts(to: &answer) }
    return answer
  }

  /// Neither a nominal nor a recommended time.
  private static func appendTimeouts(to answer: inout SCSIAnswer) {
    answer.appendShort(10)
    answer.appendShort(0)
    answer.appendLong(0)
  }
}
