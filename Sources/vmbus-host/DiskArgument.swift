// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ProgramSupport
import SimulatedHost
import VMBus

/// `FILE[,option...]`, where FILE may be `memory:SIZE`.
struct DiskArgument: ExpressibleByArgument {
  var file: String
  var isReadOnly = false
  var blockSize = DiskBlockSize.bytes512
  var physicalBlockSize: Int?
  var flags: OfferFlags = []
  /// 2 for a disk of the guests' paravisor.
  var vtl: UInt8 = 0
  /// Where it hangs; by default each disk has a controller of its own.
  var controller: Int?
  var lun = 0

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let file = parts.first, !file.isEmpty else { return nil }
    self.file = file
    for option in parts.dropFirst() {
      switch option {
      case "ro": isReadOnly = true
      case "block=512": blockSize = .bytes512
      case "block=4096": blockSize = .bytes4096
      case "physical=4096": physicalBlockSize = 4096
      case "vtl=2": vtl = 2
      case "memory=ring": flags = .confidentialRingBuffer
      case "memory=all": flags = .confidential
      // A fault: guests are to refuse such an offer.
      case "memory=external": flags = .confidentialExternalMemory
      default:
        guard let place = DiskPlace.Part(option) else { return nil }
        switch place {
        case .controller(let number): controller = number
        case .lun(let number): lun = number
        }
      }
    }
  }

  /// The nth controller or disk, the same each time.
  static func instance(_ index: Int) -> GUID {
    var guid: GUID = "5d15c000-0000-4000-8000-000000000000"
    guid.wireBytes[14] = UInt8(truncatingIfNeeded: index >> 8)
    guid.wireBytes[15] = UInt8(truncatingIfNeeded: index)
    return guid
  }

  /// - Parameter index: which disk of the host it is: its serial number comes of it.
  func makeDisk(_ index: Int) throws -> SCSIDisk {
    do {
      let image: DiskImage
      if file.hasPrefix("memory:") {
        let text = String(file.dropFirst("memory:".count))
        guard let size = Self.size(text), size > 0, size % UInt64(blockSize.rawValue) == 0 else {
          throw ProgramFailure(.usage, "\(file): no size that is a multiple of the block size")
        }
        image = try DiskImage.inMemory(byteCount: size, readOnly: isReadOnly)
      } else {
        image = try DiskImage.open(path: file, readOnly: isReadOnly)
      }
      return try SCSIDisk(
        image, blockSize: blockSize, physicalBlockSize: physicalBlockSize,
        identity: Self.instance(index))
    } catch let error as DiskImageError {
      throw ProgramFailure(.noInput, "\(error)")
    }
  }

  /// Bytes as people write them: 64M, 1G.
  static func size(_ text: String) -> UInt64? {
    let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    let unit = text.last.flatMap { units[Character($0.uppercased())] }
    guard let number = UInt64(unit == nil ? text : String(text.dropLast())) else { return nil }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
    return overflow ? nil : bytes
  }
}

/// `controller=N,lun=N`, in any order; what is left out is 0.
struct DiskPlace {
  enum Part {
    case controller(Int)
    case lun(Int)

    init?(_ text: String) {
      let pair = text.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2, let number = Int(pair[1]), number >= 0 else { return nil }
      switch pair[0] {
      case "controller" where number < 64: self = .controller(number)
      case "lun" where number < SCSIController.maximumDisks: self = .lun(number)
      default: return nil
      }
    }
  }

  var controller = 0
  var lun = 0

  init?(_ text: String) {
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      switch Part(String(part)) {
      case .controller(let number): controller = number
      case .lun(let number): lun = number
      case nil: return nil
      }
    }
  }
}
