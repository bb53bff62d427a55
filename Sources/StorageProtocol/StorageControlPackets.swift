// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The packets that a client sends after its start-up, beside requests.
extension StorageNegotiation {
  /// Asks for subchannels, once, on the primary channel. The host offers them after its answer.
  public static func createSubchannels(_ count: UInt16) -> Packet {
    var packet = Packet(repeating: 0)
    StoragePacketHeader(.createSubchannels, flags: .requestCompletion).write(into: &packet)
    StorageSubchannelRequest(count: count).write(
      into: &packet, at: StoragePacketHeader.byteCount)
    return packet
  }

  /// Asks that what is under way be ended: of one unit (RESET_LUN), or of all (RESET_BUS).
  public static func reset(_ operation: StorageOperation, lun: UInt8) -> Packet {
    var packet = Packet(repeating: 0)
    StoragePacketHeader(operation, flags: .requestCompletion).write(into: &packet)
    var body = SCSIRequest()
    body.length = UInt16(truncatingIfNeeded: SCSIRequest.byteCount)
    body.lun = lun
    body.write(into: &packet, at: StoragePacketHeader.byteCount)
    return packet
  }
}
