// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import Synchronization
public import SystemPackage
import VMBus

/// Control messages and ring packets, written to a pcapng file as they pass.
///
/// Link type 147 (USER0). Each record starts with a header of ours, 16 bytes, little-endian: kind
/// u8 (1 control message, 2 ring packet, 3 a device's message that a packet names), direction u8 (0 from the guest, 1 to it), packet type
/// u16 (0 for messages), channel u32, transaction id u64. Then follow the message, or the ranges
/// and the payload as they lie in the ring.
public final class Capture: Sendable {
  private let file: Lock<OwnedDescriptor>

  /// - Parameter path: made anew; what was there is gone.
  public init(path: String) throws(Errno) {
    let descriptor: FileDescriptor
    do {
      descriptor = try FileDescriptor.open(
        FilePath(path), .writeOnly, options: [.create, .truncate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch let error as Errno {
      throw error
    } catch {
      throw .ioError
    }
    file = Lock(OwnedDescriptor(owning: descriptor.rawValue))
    var section: [UInt8] = []
    section.append(UInt32(0x1A2B_3C4D))  // byte order
    section.append(UInt32(0x0000_0001))  // version 1.0
    section.append(UInt64.max)  // length not known
    block(0x0A0D_0D0A, section)
    // Interface: USER0, no limit on length, times in nanoseconds (option 9).
    var interface: [UInt8] = []
    interface.append(UInt32(147))
    interface.append(UInt32(0))
    interface.append(UInt32(9 | 1 << 16))
    interface.append(UInt32(9))
    interface.append(UInt32(0))
    block(1, interface)
  }

  public func message(_ bytes: [UInt8], fromGuest: Bool) {
    record(header(1, fromGuest, type: 0, channel: 0, transactionID: 0) + bytes)
  }

  func packet(
    channel: ChannelID, fromGuest: Bool, type: PacketType, transactionID: UInt64, ranges: RawSpan,
    payload: RawSpan
  ) {
    var bytes = header(
      2, fromGuest, type: type.rawValue, channel: channel.rawValue, transactionID: transactionID)
    unsafe ranges.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    unsafe payload.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    record(bytes)
  }

  /// What lies in memory that the guest and the device share, as RNDIS messages do.
  func content(channel: ChannelID, fromGuest: Bool, _ bytes: RawSpan) {
    var whole = header(3, fromGuest, type: 0, channel: channel.rawValue, transactionID: 0)
    unsafe bytes.withUnsafeBytes { unsafe whole.append(contentsOf: $0) }
    record(whole)
  }

  private func header(
    _ kind: UInt32, _ fromGuest: Bool, type: UInt16, channel: UInt32, transactionID: UInt64
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(kind | (fromGuest ? 0 : 1 << 8) | UInt32(type) << 16)
    bytes.append(channel)
    bytes.append(transactionID)
    return bytes
  }

  /// An enhanced packet block.
  private func record(_ bytes: [UInt8]) {
    let time = vmbus_wall_clock()
    var body: [UInt8] = []
    body.append(UInt32(0))
    body.append(UInt32(truncatingIfNeeded: time >> 32))
    body.append(UInt32(truncatingIfNeeded: time))
    body.append(UInt32(bytes.count))
    body.append(UInt32(bytes.count))
    body += bytes
    block(6, body)
  }

  /// A failing disk must not stop the host: what can't be written is left out.
  private func block(_ type: UInt32, _ body: [UInt8]) {
    let padded = body + [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
    var bytes: [UInt8] = []
    bytes.append(type)
    bytes.append(UInt32(padded.count + 12))
    bytes += padded
    bytes.append(UInt32(padded.count + 12))
    let whole = bytes
    file.withLock { file in _ = try? file.descriptor.writeAll(whole) }
  }
}

extension [UInt8] {
  /// Appends an integer, little-endian.
  fileprivate mutating func append<T: FixedWidthInteger>(_ value: T) {
    for byte in 0..<T.bitWidth / 8 {
      append(UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: 8 * byte)))
    }
  }
}
