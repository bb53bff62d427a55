// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
public import VSC

/// What the host tells beside the answers to requests.
extension StorageQueue {
  /// What the host told unasked since the last call.
  public mutating func takeEvents() -> StorageEvents {
    defer { events = [] }
    return events
  }

  @usableFromInline
  mutating func note(_ error: StorageError) {
    switch error {
    case .malformed, .unexpectedOperation: channel.counters.malformed &+= 1
    case .failed(_, _, let sense?) where sense.code == 0x2A && sense.qualifier == 0x09:
      events.insert(.capacityChanged)
    // Mode parameters or capabilities changed, and what the unit is.
    case .failed(_, _, let sense?)
    where sense.key == .unitAttention && (sense.code == 0x2A || sense.code == 0x3F):
      events.insert(.unitsChanged)
    case .failed where error.isUnitGone: events.insert(.unitsChanged)
    default: break
    }
  }

  /// A packet that answers nothing.
  @usableFromInline
  mutating func unsolicited(_ packet: Packet) {
    var operation: UInt32 = 0
    if packet.type == .inBand, packet.transactionID == 0 {
      var reader = WireReader(channel.payload(of: packet), name: "storage packet")
      if let value = try? reader.read(UInt32.self) { operation = value }
    }
    switch StorageOperation(rawValue: operation) {
    case .enumerateBus: events.insert(.unitsChanged)
    case .removeDevice: events.insert([.unitsChanged, .removed])
    default: channel.counters.malformed &+= 1
    }
  }
}
