// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

extension SCSIDisk {
  /// The pages of vital product data, in ascending order.
  static func hasVitalProductPage(_ page: UInt8) -> Bool {
    switch page {
    case 0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2: true
    default: false
    }
  }

  /// - Parameter maximumTransfer: bytes.
  func vitalProductPage(_ page: UInt8, maximumTransfer: UInt32) -> SCSIAnswer? {
    switch page {
    case 0x00:
      var count: UInt16 = 0
      for page in UInt8.min...UInt8.max where SCSIDisk.hasVitalProductPage(page) { count &+= 1 }
      var answer = SCSIAnswer(VitalProductDataHeader(page: 0, length: count))
      for page in UInt8.min...UInt8.max where SCSIDisk.hasVitalProductPage(page) {
        answer.append(page)
      }
      return answer
    case 0x80:
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 32))
      appendSerial(to: &answer)
      return answer
    case 0x83: return designators
    case 0xB0:
      var answer = SCSIAnswer(limits(maximumTransfer: maximumTransfer))
      answer.appendZeros(upTo: 64)
      return answer
    case 0xB1:
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 0x3C))
      // It does not rotate; its form is not told.
      answer.appendShort(1)
      answer.appendZeros(upTo: 64)
      return answer
    case 0xB2:
      var answer = SCSIAnswer(VitalProductDataHeader(page: page, length: 4))
      answer.append(0)
      // LBPU, LBPWS, LBPWS10, LBPRZ; then the type: thin, or none.
      answer.append(isThin ? 0xE4 : 0)
      answer.append(isThin ? 2 : 0)
      answer.append(0)
      return answer
    default: return nil
    }
  }

  private func limits(maximumTransfer: UInt32) -> BlockLimits {
    let provisioning = ProvisioningLimits(blockSize)
    var limits = BlockLimits()
    limits.options = BlockLimits.writeSameNeedsCount
    limits.maximumTransfer = maximumTransfer / UInt32(blockSize.rawValue)
    limits.optimalTransfer = limits.maximumTransfer
    limits.optimalGranularity = UInt16(4096 / blockSize.rawValue)
    limits.maximumWriteSame = UInt64(provisioning.writeSameBlocks)
    guard isThin else { return limits }
    limits.maximumUnmap = provisioning.unmapBlocks
    limits.maximumUnmapDescriptors = UInt32(ProvisioningLimits.unmapDescriptors)
    limits.unmapGranularity = provisioning.granularity
    // The first granule begins with the disk.
    limits.unmapAlignment = BlockLimits.alignmentIsValid
    return limits
  }

  /// Two names of the unit: NAA, locally assigned, and the vendor's with the serial number.
  private var designators: SCSIAnswer {
    var answer = SCSIAnswer(VitalProductDataHeader(page: 0x83, length: 56))
    // Binary, NAA, 8 bytes.
    answer.appendWord(0x0103_0008)
    for index in 0..<8 {
      let mixed = identity.wireBytes[index] ^ identity.wireBytes[index &+ 8]
      answer.append(index == 0 ? 0x30 | mixed & 0xF : mixed)
    }
    // ASCII, T10 vendor identification, 8 and 32 bytes.
    answer.appendWord(0x0201_0028)
    answer.appendLong(0x4D73_6674_2020_2020)
    appendSerial(to: &answer)
    return answer
  }

  /// The serial number: the identity's bytes in hexadecimal.
  private func appendSerial(to answer: inout SCSIAnswer) {
    for index in identity.wireBytes.indices {
      answer.append(SCSIDisk.digit(identity.wireBytes[index] >> 4))
      answer.append(SCSIDisk.digit(identity.wireBytes[index] & 0xF))
    }
  }

  private static func digit(_ value: UInt8) -> UInt8 {
    value < 10 ? 0x30 &+ value : 0x61 &+ value &- 10
  }
}
