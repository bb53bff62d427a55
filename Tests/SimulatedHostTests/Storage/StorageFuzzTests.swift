// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import TestSupport
import Testing
import VMBus

/// Random requests: none may trap, reach past its data, or give a completion without its form.
@Suite struct StorageFuzzTests {
  static let codes: [UInt8] = [
    0x00, 0x03, 0x08, 0x0A, 0x12, 0x1A, 0x1B, 0x25, 0x28, 0x2A, 0x35, 0x5A, 0x88, 0x8A, 0x91, 0x9E,
    0xA0, 0xA8, 0xAA, 0x15, 0x2E, 0x2F, 0x41, 0x42, 0x55, 0x8E, 0x8F, 0x93, 0xA3, 0xAE, 0xAF,
  ]

  /// A request of random bytes, half of the time with small numbers, which reach deeper.
  static func request(_ random: inout Numbers) -> [UInt8] {
    let isTame = Bool.random(using: &random)
    let mask: UInt8 = isTame ? 0x07 : 0xFF
    var bytes = (0..<52).map { _ in
      UInt8.random(in: 0...255, using: &random) & (random.next() & 3 == 0 ? mask : 0xFF)
    }
    let code = codes.randomElement(using: &random) ?? 0
    if isTame {
      for index in 16..<36 { bytes[index] = 0 }
      // The last bytes of the address and of the count, by the length of the command.
      let places: [(Int, Int)] = [(19, 20), (21, 24), (21, 24), (21, 24), (25, 29), (21, 25)]
      let (address, count) = places[min(Int(code >> 5), 5)]
      bytes[address] = UInt8.random(in: 0...66, using: &random)
      bytes[count] = UInt8.random(in: 0...9, using: &random)
      if code == 0x9E { bytes[17] = random.next() & 1 == 0 ? 0x10 : 0x12 }
      if code == 0xA3 { bytes[17] = 0x0C }
      if random.next() & 3 == 0 {
        bytes[Int.random(in: 17..<32, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      bytes[5] = 0
      bytes[6] = 0
      bytes[7] &= 1
      bytes[8] = 16
      bytes[12...15] = [0, UInt8.random(in: 0...8, using: &random), 0, 0]
    }
    bytes[16] = code
    if random.next() & 15 == 0 { bytes[16] = UInt8.random(in: 0...255, using: &random) }
    return bytes
  }

  @Test(arguments: [1, 2] as [UInt64]) func requests(_ seed: UInt64) throws {
    var random = Numbers(seed: seed)
    let bench = try StorageBench(blocks: 64, maximumTransferBytes: 8192)
    var memory = [UInt8](repeating: 0xEE, count: 4096)
    var good = 0
    for round in 0..<50_000 {
      // A stopped disk would refuse all the rest.
      if round & 15 == 0 { _ = Command([0x1B, 0, 0, 0, 1, 0]).run(on: bench) }
      let bytes = Self.request(&random)
      var request = try SCSIRequest(parsing: bytes)
      let claimed = Int(min(request.transferLength, 4096))
      let room = Int.random(in: 0...4096, using: &random)
      var span = memory.mutableSpan
      var mutable = unsafe span.mutableBytes
      var data = ScatteredData(
        mutable._mutatingExtracting(first: room), pieceSize: 1 + Int(random.next() & 1023),
        hole: random.next() & 7 == 0 ? Int(random.next() & 4095) : .max)
      bench.controller.execute(&request, version: .windows81, data: &data)
      let moved = Int(request.transferLength)
      #expect(moved <= min(claimed, room), "\(bytes)")
      #expect(request.commandLength == 16 && request.senseLength == 20 && request.length == 52)
      #expect(request.srbStatus.hasSense == (request.sense != nil), "\(bytes)")
      if request.srbStatus == .success { good += 1 } else { #expect(moved == 0, "\(bytes)") }
    }
    // Otherwise the numbers would not reach what they are for.
    #expect(good > 3_000)
  }

  @Test func packets() throws {
    var random = Numbers(seed: 3)
    let bench = try StorageBench()
    var completion = StorVSPSession.Completion(repeating: 0)
    var answered = 0
    for _ in 0..<2_000 {
      var session = StorVSPSession(maximumSubchannels: 2)
      for step in 0..<30 {
        // The right operation half of the time, so that each stage is reached.
        let operation: UInt8 =
          Bool.random(using: &random)
          ? [7, 9, 10, 8][min(step, 3)] : UInt8.random(in: 0...15, using: &random)
        var packet: [UInt8] = [operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        packet += operation == 9 ? [0, 6, 0, 0] : Self.request(&random)
        packet = Array(packet.prefix(Int.random(in: 0...80, using: &random)))
        let span = packet.span
        var data = NoExternalData()
        do throws(StorVSPError) {
          let result = try session.handle(
            unsafe span.bytes, isTransactional: true, data: &data,
            target: SCSITarget(bench.controller, nexus: SCSINexus()),
            completion: &completion)
          #expect(result.byteCount <= 64 && result.byteCount < packet.count + 8)
          #expect(completion[0] == 1)
          answered += 1
        } catch {
          #expect(!error.description.isEmpty)
        }
      }
    }
    #expect(answered > 1_000)
  }
}
