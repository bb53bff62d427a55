// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

/// Packets of the storage driver of Debian's kernel 6.12.107, captured by vmbus-host of a guest of
/// vmbus-vm.
@Suite struct LinuxPacketsTests {
  static func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = Array(hexadecimal.utf8)
    return stride(from: 0, to: digits.count - 1, by: 2).map { index in
      UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16) ?? 0
    }
  }

  static func zeros(_ count: Int) -> String { String(repeating: "00", count: count) }

  /// The start-up's, each 64 bytes long, whatever the operation.
  @Test(arguments: [
    ("07000000010000000000000000000000", StorageOperation.beginInitialization),
    ("09000000010000000000000002060000", .queryProtocolVersion),
    ("0a000000010000000000000000000000", .queryProperties),
    ("08000000010000000000000000000000", .endInitialization),
    ("0d000000010000000000000001000000", .createSubchannels),
  ]) func theStartUp(_ start: String, _ operation: StorageOperation) throws {
    let header = try StoragePacketHeader(parsing: Self.bytes(start + Self.zeros(48)))
    // Linux asks for a completion in the packet as well.
    #expect(header.operation == operation && header.flags.rawValue == 1)
    #expect(header.status == .success)
  }

  @Test func theNewestVersionIsAskedForFirst() throws {
    let version = try StorageProtocolVersion(parsing: Self.bytes("02060000"))
    #expect(version.version == .windows10)
  }

  static func request(_ packet: String) throws -> SCSIRequest {
    let packet = bytes(packet)
    #expect(packet.count == 64)
    let header = try StoragePacketHeader(parsing: packet)
    #expect(header.operation == .executeSRB && header.flags.rawValue == 1)
    return try SCSIRequest(parsing: Array(packet.dropFirst(StoragePacketHeader.byteCount)))
  }

  @Test func aRead() throws {
    let request = try Self.request(
      "03000000010000000000000034000000000000000a1401000010000028000000"
        + "000000000800000000000000000000000000ff204a0100003c00000000000000")
    #expect(request.path == 0 && request.target == 0 && request.lun == 0)
    #expect(request.commandLength == 10 && request.senseLength == 20)
    #expect(request.direction == .in && request.transferLength == 4096)
    #expect(request.payload[0] == 0x28 && request.payload[8] == 8)
    #expect(request.queueTag == 0xFF && request.queueAction == 0x20)
    #expect(
      request.flags == [
        .queueActionEnable, .disableSynchronousTransfer, .dataIn, .noQueueFreeze,
      ])
    #expect(request.timeout == 60)
  }

  @Test func aWrite() throws {
    let request = try Self.request(
      "03000000010000000000000034000000000000000a140000001000002a000000"
        + "008000000800000000000000000000000000ff208a0100003c00000000000000")
    #expect(request.direction == .out && request.transferLength == 4096)
    #expect(request.payload[0] == 0x2A && request.payload[5] == 0x80 && request.payload[8] == 8)
    #expect(request.flags.contains(.dataOut) && !request.flags.contains(.dataIn))
  }

  @Test func aTestWithoutData() throws {
    let request = try Self.request(
      "0300000001000000000000003400000000000000061402000000000000000000"
        + "000000000000000000000000000000000000ff200a0100003c00000000000000")
    #expect(request.direction == .none && request.transferLength == 0)
    #expect(request.commandLength == 6 && request.payload[0] == 0)
  }
}
