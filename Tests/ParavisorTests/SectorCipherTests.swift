// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Paravisor

@Suite struct SectorCipherTests {
  private static func bytes(_ hex: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var digits = hex[...]
    while let byte = UInt8(digits.prefix(2), radix: 16) {
      bytes.append(byte)
      digits = digits.dropFirst(2)
    }
    return bytes
  }

  /// IEEE 1619, vector 10: XTS-AES-256, data unit 0xff of 512 bytes.
  private static let key = bytes(
    "2718281828459045235360287471352662497757247093699959574966967627"
      + "3141592653589793238462643383279502884197169399375105820974944592")

  @Test func aSectorIsWhatTheStandardSays() throws {
    let cipher = try #require(SectorCipher(key: Self.key))
    let plain = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
    var bytes = plain
    let encryptedBytes = cipher.encrypt(&bytes, firstSector: 0xFF)
    #expect(encryptedBytes)
    #expect(
      bytes.prefix(32)
        == Self.bytes("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")[...])
    let decryptedBytes = cipher.decrypt(&bytes, firstSector: 0xFF)
    #expect(decryptedBytes)
    #expect(bytes == plain)
  }

  @Test func eachSectorHasItsOwnTweak() throws {
    let cipher = try #require(SectorCipher(key: Self.key))
    var bytes = [UInt8](repeating: 7, count: 1024)
    let encryptedBytes = cipher.encrypt(&bytes, firstSector: 3)
    #expect(encryptedBytes)
    #expect(bytes.prefix(512) != bytes.suffix(512))
    var second = [UInt8](repeating: 7, count: 512)
    let encryptedSecond = cipher.encrypt(&second, firstSector: 4)
    #expect(encryptedSecond)
    #expect(bytes.suffix(512) == second[...])
  }

  @Test func badKeysAreRefused() {
    #expect(SectorCipher(key: []) == nil)
    #expect(SectorCipher(key: Array(Self.key.dropLast())) == nil)
    // OpenSSL refuses equal halves, as the standard demands.
    #expect(SectorCipher(key: [UInt8](repeating: 1, count: 64)) == nil)
  }

  @Test func partsOfSectorsAreRefused() throws {
    let cipher = try #require(SectorCipher(key: Self.key))
    var bytes = [UInt8](repeating: 0, count: 511)
    let encryptedBytes = cipher.encrypt(&bytes, firstSector: 0)
    #expect(!encryptedBytes)
  }
}
