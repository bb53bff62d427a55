// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VSC

/// What a host demands of a frame that it is to cut into segments.
@usableFromInline
enum LargeSend {
  /// Makes the length in the IP header zero, and the header checksum of IPv4, and makes TCP's checksum the
  /// sum of a pseudo-header without a length: the host fills them in for each segment. A frame that is not
  /// what its info says is left as it is.
  @usableFromInline
  @_lifetime(frame: copy frame)
  static func prepare(_ frame: inout MutableRawSpan, _ info: LargeSendInfo) {
    let tcp = info.tcpHeaderOffset
    let network = networkOffset(frame)
    guard tcp + 20 <= frame.byteCount else { return }
    var sum: UInt32 = 6
    if info.isIPv6 {
      guard network + 40 <= tcp else { return }
      frame.storeBytes(of: 0, toByteOffset: network + 4, as: UInt16.self)
      add(frame, network + 8, 32, &sum)
    } else {
      guard network + 20 <= tcp else { return }
      frame.storeBytes(of: 0, toByteOffset: network + 2, as: UInt16.self)
      frame.storeBytes(of: 0, toByteOffset: network + 10, as: UInt16.self)
      add(frame, network + 12, 8, &sum)
    }
    while sum >> 16 != 0 { sum = sum & 0xFFFF + sum >> 16 }
    frame.storeBytes(
      of: UInt16(truncatingIfNeeded: sum).bigEndian, toByteOffset: tcp + 16, as: UInt16.self)
  }

  /// Where the IP header lies: behind a tag, if there is one.
  private static func networkOffset(_ frame: borrowing MutableRawSpan) -> Int {
    guard frame.byteCount >= 18 else { return frame.byteCount }
    let type = unsafe frame.bytes.unsafeLoadUnaligned(fromByteOffset: 12, as: UInt16.self)
    return UInt16(bigEndian: type) == 0x8100 ? 18 : 14
  }

  private static func add(
    _ frame: borrowing MutableRawSpan, _ start: Int, _ count: Int, _ sum: inout UInt32
  ) {
    for offset in stride(from: start, to: start + count, by: 2) {
      let word = unsafe frame.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)
      sum += UInt32(UInt16(bigEndian: word))
    }
  }
}
