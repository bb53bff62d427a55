// SPDX-License-Identifier: Apache-2.0

import CCrypto
import Platform
import Synchronization

/// AES-256-XTS over sectors of 512 bytes, with the sector's number as the tweak: what dm-crypt calls
/// `aes-xts-plain64` (IEEE 1619).
@safe
final class SectorCipher: @unchecked Sendable {
  static let sectorByteCount = 512
  static let keyByteCount = 64

  // Each is used by one thread at a time.
  private let encryption: Lock<Cipher>
  private let decryption: Lock<Cipher>

  /// A box for the C object.
  @safe
  private final class Cipher: @unchecked Sendable {
    let context: OpaquePointer

    init?(_ key: [UInt8], encrypts: Bool) {
      guard let context = unsafe vmbus_xts_new(key, encrypts) else { return nil }
      unsafe self.context = context
    }

    deinit { unsafe vmbus_xts_free(context) }
  }

  /// - Parameter key: 64 bytes, two different halves. Nil for another one.
  init?(key: [UInt8]) {
    guard key.count == Self.keyByteCount, let encryption = Cipher(key, encrypts: true),
      let decryption = Cipher(key, encrypts: false)
    else { return nil }
    self.encryption = Lock(encryption)
    self.decryption = Lock(decryption)
  }

  /// Encrypts whole sectors in place. Returns false when libcrypto fails.
  func encrypt(_ bytes: inout [UInt8], firstSector: UInt64) -> Bool {
    encryption.withLock { Self.run($0, &bytes, firstSector) }
  }

  func decrypt(_ bytes: inout [UInt8], firstSector: UInt64) -> Bool {
    decryption.withLock { Self.run($0, &bytes, firstSector) }
  }

  private static func run(_ cipher: Cipher, _ bytes: inout [UInt8], _ sector: UInt64) -> Bool {
    guard bytes.count % sectorByteCount == 0 else { return false }
    return unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      for index in 0..<buffer.count / sectorByteCount {
        guard let start = buffer.baseAddress,
          unsafe vmbus_xts_sector(
            cipher.context, sector &+ UInt64(index), start + index * sectorByteCount,
            Int32(sectorByteCount))
        else { return buffer.isEmpty }
      }
      return true
    }
  }
}
