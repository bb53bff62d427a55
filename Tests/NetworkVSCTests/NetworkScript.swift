// SPDX-License-Identifier: Apache-2.0

@testable import NetworkVSC
@testable import VMBus

/// What a host answers in the start-up, by hand from the reference. Each answer can be replaced.
struct NetworkScript {
  var queueCount = 1
  var isOpened = false
  /// Versions above are refused.
  var newestVersion: UInt32 = 0x60001
  var mtu: UInt32 = 1500
  var isLinkUp = true
  var queues: UInt32 = 64
  var sectionByteCount: UInt32 = 6144
  var receiveByteCount = 0
  /// Answers by the type of the NVSP message; an empty one is none.
  var completions: [UInt32: [UInt8]] = [:]
  /// Answers by the OID, or by 0 for INITIALIZE, whose request id is filled in; an empty one is none.
  var answers: [UInt32: [UInt8]] = [:]
  /// NVSP messages and OIDs in the order in which they came.
  var asked: [String] = []

  static let address: [UInt8] = [0x02, 0x15, 0x5D, 1, 2, 3]

  mutating func answer(_ packet: BedPacket) -> (completion: [UInt8]?, message: [UInt8]?) {
    guard packet.type != .completion else { return (nil, nil) }
    guard packet.word == 107 else { return (nvsp(packet), nil) }
    let message = rndis(packet.memory)
    return (.words(108, 1), message)
  }

  private mutating func nvsp(_ packet: BedPacket) -> [UInt8]? {
    asked.append("\(packet.word)")
    guard packet.completionRequested else { return nil }
    if let given = completions[packet.word] { return given.isEmpty ? nil : given }
    switch packet.word {
    case 1: return .words(2, 0xFFFF_FFFF, 34, packet.word(4) <= newestVersion ? 1 : 4)
    case 101:
      let count = UInt32(receiveByteCount / NetworkBed.suballocation)
      return .words(
        102, 1, 1, 0, UInt32(NetworkBed.suballocation), count,
        count * UInt32(NetworkBed.suballocation))
    case 104: return .words(105, 1, sectionByteCount)
    case 133: return .words(133, 1, packet.word(8))
    default: return nil
    }
  }

  private mutating func rndis(_ message: [UInt8]) -> [UInt8]? {
    let (type, id) = (message.word(0), message.word(8))
    let oid = type == 2 ? 0 : message.word(12)
    asked.append(String(oid, radix: 16))
    if var given = answers[oid] {
      guard given.count >= 12 else { return nil }
      given.replaceSubrange(8..<12, with: id.wireBytes)
      return given
    }
    switch type {
    case 2: return Self.initialized(id)
    case 5: return .words(0x8000_0005, 16, id, 0)
    case 4: break
    default: return nil
    }
    switch oid {
    case 0x0001_0106: return Self.queried(id, mtu.wireBytes)
    case 0x0101_0101: return Self.queried(id, Self.address)
    case 0xFC01_020D: return Self.queried(id, Self.offload)
    case 0x0001_0114: return Self.queried(id, (isLinkUp ? 0 : 1 as UInt32).wireBytes)
    case 0x0001_0107: return Self.queried(id, UInt32(100_000_000).wireBytes)
    case 0x0001_0203:
      return Self.queried(id, .words(0x0012_0288, 0x300, 1, queues) + [128, 0])
    default: return .words(0x8000_0004, 24, id, 0xC000_00BB, 0, 0)
    }
  }

  /// 8 packets in a message, aligned to 8 bytes.
  static func initialized(
    _ id: UInt32 = 0, status: UInt32 = 0, medium: UInt32 = 0, alignment: UInt32 = 3
  )
    -> [UInt8]
  {
    .words(0x8000_0002, 52, id, status, 1, 0, 1, medium, 8, 0xEFFF_FFFF, alignment, 0, 0)
  }

  static func queried(_ id: UInt32, _ buffer: [UInt8]) -> [UInt8] {
    .words(0x8000_0004, UInt32(24 + buffer.count), id, 0, UInt32(buffer.count), 16) + buffer
  }

  /// NDIS_OFFLOAD of NDIS 6.30: checksums of all kinds, LSO v2 up to 0xF53C bytes, coalesced receive.
  static let offload: [UInt8] = {
    var bytes: [UInt8] = [0xA7, 3, 156, 0]
    bytes += .words(2, 0x155, 2, 0x155, 2, 0x55, 2, 0x55)
    bytes += [UInt8](repeating: 0, count: 16 + 28)
    bytes += .words(2, 0xF53C, 2, 2, 0xF53C, 2, 5)
    bytes += [UInt8](repeating: 0, count: 4 + 32)
    return bytes + [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
  }()
}
