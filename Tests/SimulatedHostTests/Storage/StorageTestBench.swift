// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing
import VMBus

/// External data whose pieces are `pieceSize` bytes long, with an optional hole in it.
struct ScatteredData: ExternalData, ~Copyable, ~Escapable {
  private var whole: ContiguousExternalData
  private let pieceSize: Int
  private let hole: Int

  @_lifetime(copy memory)
  init(_ memory: consuming MutableRawSpan, pieceSize: Int, hole: Int = .max) {
    whole = ContiguousExternalData(memory)
    self.pieceSize = pieceSize
    self.hole = hole
  }

  var byteCount: Int { whole.byteCount }

  @_lifetime(&self)
  mutating func segment(
    at offset: Int, maximum: Int
  ) throws(ExternalDataError) -> MutableRawSpan {
    guard offset < hole else { throw .notVisible(page: 7) }
    return try whole.segment(at: offset, maximum: min(maximum, pieceSize))
  }
}

/// Runs one command the way that a guest's packet would, and keeps what came of it.
struct Command {
  var cdb: [UInt8]
  var length: UInt8?
  var path: UInt8 = 0
  var target: UInt8 = 0
  var lun: UInt8 = 0
  /// What the request claims; by default all of `data`.
  var transferLength: UInt32?
  var data: [UInt8] = []
  var pieceSize = 4096
  var hole = Int.max

  init(_ cdb: [UInt8], room: Int = 0) {
    self.cdb = cdb
    data = [UInt8](repeating: 0xEE, count: room)
  }

  init(_ cdb: [UInt8], writing data: [UInt8]) {
    self.cdb = cdb
    self.data = data
  }

  var request: SCSIRequest {
    var request = SCSIRequest()
    request.length = 52
    request.commandLength = length ?? UInt8(cdb.count)
    request.path = path
    request.target = target
    request.lun = lun
    request.transferLength = transferLength ?? UInt32(data.count)
    request.payload = InlineArray { $0 < cdb.count ? cdb[$0] : 0 }
    return request
  }

  func run(on bench: StorageBench) -> Answer {
    var request = request
    var memory = data
    var span = memory.mutableSpan
    var scattered = ScatteredData(unsafe span.mutableBytes, pieceSize: pieceSize, hole: hole)
    bench.controller.execute(&request, version: .windows81, data: &scattered)
    return Answer(request: request, memory: memory)
  }
}

extension StorageBench {
  /// Runs a command as one guest of several.
  func run(_ command: Command, as nexus: SCSINexus) -> Answer {
    var request = command.request
    var memory = command.data
    var span = memory.mutableSpan
    var data = ContiguousExternalData(unsafe span.mutableBytes)
    SCSITarget(controller, nexus: nexus).execute(&request, version: .windows81, data: &data)
    return Answer(request: request, memory: memory)
  }

  /// A guest comes.
  func join(_ nexus: SCSINexus) { controller.join(nexus) }
}

struct Answer {
  let request: SCSIRequest
  /// The guest's memory afterwards.
  let memory: [UInt8]

  /// The bytes that were moved.
  var data: [UInt8] { Array(memory.prefix(Int(request.transferLength))) }
  var isGood: Bool { request.srbStatus == .success && request.scsiStatus == .good }
  var payload: [UInt8] { request.payload.indices.map { request.payload[$0] } }

  /// The sense, if the completion has the form of a failed command and moved nothing.
  var sense: SCSISense? {
    guard request.srbStatus.rawValue == 0x84, request.scsiStatus == .checkCondition,
      request.transferLength == 0, request.senseLength == 20
    else { return nil }
    return request.sense
  }
}

/// A controller that a test's expectations can name.
final class StorageBench: Sendable {
  let controller: SCSIController

  init(_ controller: consuming SCSIController) { self.controller = controller }

  /// One memory disk.
  convenience init(
    blocks: UInt64 = 64, blockSize: DiskBlockSize = .bytes512, readOnly: Bool = false,
    maximumTransferBytes: UInt32 = 0x40000
  ) throws {
    try self.init(
      .inMemory(byteCount: blocks * UInt64(blockSize.rawValue), readOnly: readOnly),
      blockSize: blockSize, maximumTransferBytes: maximumTransferBytes)
  }

  /// One disk at LUN 0.
  convenience init(
    _ image: consuming DiskImage, blockSize: DiskBlockSize = .bytes512,
    maximumTransferBytes: UInt32 = 0x40000
  ) throws {
    var controller = SCSIController(maximumTransferBytes: maximumTransferBytes)
    let disk = try SCSIDisk(image, blockSize: blockSize, identity: testIdentity)
    let isAttached = controller.attach(disk, lun: 0)
    #expect(isAttached)
    self.init(controller)
  }
}

extension StorageBench {
  /// Writes blocks that no one else uses and reads them back, several times.
  func ownsBlocks(_ blocks: Range<Int>, seed: UInt8) -> Bool {
    for turn in 0..<20 {
      for block in blocks {
        let data = pattern(512, seed: seed &+ UInt8(turn))
        let write = Command(SCSIDiskTests.write16(UInt64(block), 1), writing: data)
        guard write.run(on: self).isGood else { return false }
      }
      for block in blocks {
        let read = Command(SCSIDiskTests.read16(UInt64(block), 1), room: 512)
        guard read.run(on: self).data == pattern(512, seed: seed &+ UInt8(turn)) else {
          return false
        }
      }
    }
    return true
  }
}

let testIdentity: GUID = "01234567-89ab-cdef-0011-223344556677"

func pattern(_ count: Int, seed: UInt8 = 1) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) &+ seed }
}
