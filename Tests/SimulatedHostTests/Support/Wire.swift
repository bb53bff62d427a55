// SPDX-License-Identifier: Apache-2.0

/// Bytes of the wire, little-endian, as tests write them down.
enum Wire {
  static func words(_ values: UInt32...) -> [UInt8] { words(values) }
  static func words(_ values: [UInt32]) -> [UInt8] {
    var bytes: [UInt8] = []
    for value in values { bytes.append(little: value) }
    return bytes
  }

  static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    guard offset + 4 <= bytes.count else { return 0xDEAD_BEEF }
    return (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  /// A NVSP message, filled up to the size of its version.
  static func nvsp(_ values: UInt32..., size: Int = 40) -> [UInt8] {
    let bytes = words(values)
    return bytes + [UInt8](repeating: 0, count: max(size - bytes.count, 0))
  }

  /// A RNDIS control message.
  static func rndis(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
    words(type, UInt32(8 + body.count)) + body
  }

  static func query(_ id: UInt32, _ oid: UInt32, _ buffer: [UInt8] = []) -> [UInt8] {
    rndis(4, words(id, oid, UInt32(buffer.count), buffer.isEmpty ? 0 : 20, 0) + buffer)
  }

  static func set(_ id: UInt32, _ oid: UInt32, _ buffer: [UInt8]) -> [UInt8] {
    rndis(5, words(id, oid, UInt32(buffer.count), 20, 0) + buffer)
  }

  /// A data message, with the frame right behind its info.
  static func packet(_ frame: [UInt8], info: [UInt8] = []) -> [UInt8] {
    words(
      1, UInt32(44 + info.count + frame.count), UInt32(36 + info.count), UInt32(frame.count), 0,
      0, 0, info.isEmpty ? 0 : 36, UInt32(info.count), 0, 0) + info + frame
  }

  /// One element of per-packet info.
  static func info(_ type: UInt32, _ value: UInt32) -> [UInt8] { words(16, type, 12, value) }
}

extension [UInt8] {
  mutating func append<T: FixedWidthInteger>(little value: T) {
    for index in 0..<T.bitWidth / 8 { append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
  }
}
