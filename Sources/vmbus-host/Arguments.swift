// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ProgramSupport
import SimulatedHost
import VMBus

/// `FILE[,ro][,block=4096][,memory=ring|all]`, where FILE may be `memory:SIZE`.
struct DiskArgument: ExpressibleByArgument {
  var file: String
  var isReadOnly = false
  var blockSize = DiskBlockSize.bytes512
  var flags: OfferFlags = []

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let file = parts.first, !file.isEmpty else { return nil }
    self.file = file
    for option in parts.dropFirst() {
      switch option {
      case "ro": isReadOnly = true
      case "block=512": blockSize = .bytes512
      case "block=4096": blockSize = .bytes4096
      case "memory=ring": flags = .confidentialRingBuffer
      case "memory=all": flags = .confidential
      default: return nil
      }
    }
  }

  /// The nth disk's device, the same each time.
  static func instance(_ index: Int) -> GUID {
    var guid: GUID = "5d15c000-0000-4000-8000-000000000000"
    guid.wireBytes[14] = UInt8(truncatingIfNeeded: index >> 8)
    guid.wireBytes[15] = UInt8(truncatingIfNeeded: index)
    return guid
  }

  func makeController(_ index: Int) throws -> SCSIController {
    var controller = SCSIController()
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
      _ = controller.attach(
        try SCSIDisk(image, blockSize: blockSize, identity: Self.instance(index)), lun: 0)
    } catch let error as DiskImageError {
      throw ProgramFailure(.noInput, "\(error)")
    }
    return controller
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

/// `DISK:FAULT...`
struct FaultArgument: ExpressibleByArgument {
  let disk: Int
  let plan: FaultPlan

  init?(argument: String) {
    let parts = argument.split(separator: ":", maxSplits: 1)
    guard parts.count == 2, let disk = Int(parts[0]), disk >= 0,
      let plan = FaultPlan(String(parts[1]))
    else { return nil }
    self.disk = disk
    self.plan = plan
  }
}
