// SPDX-License-Identifier: Apache-2.0

import EchoVSC
import SimulatedBus
import SimulatedHost
import SystemPackage
import Testing
import VSC

@Suite(.timeLimit(.minutes(10))) struct CaptureTests {
  /// A record of a capture: what `Capture` says of its header.
  struct Record {
    let kind: UInt8
    let isToGuest: Bool
    let channel: UInt32
    let bytes: [UInt8]
  }

  /// Reads a pcapng file by its specification: blocks of type, length, body and length again.
  static func read(_ path: String) throws -> [Record] {
    let file = try FileDescriptor.open(FilePath(path), .readOnly)
    defer { try? file.close() }
    var content: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = try unsafe buffer.withUnsafeMutableBytes { try unsafe file.read(into: $0) }
      if count == 0 { break }
      content += buffer.prefix(count)
    }
    var reader = WireReader(unsafe content.span.bytes, name: "pcapng")
    var records: [Record] = []
    var types: [UInt32] = []
    while reader.remaining > 0 {
      let type = try reader.read(UInt32.self)
      let length = try reader.read(UInt32.self)
      var block = WireReader(try reader.take(Int(length) - 12), name: "block")
      #expect(try reader.read(UInt32.self) == length)
      types.append(type)
      guard type == 6 else { continue }
      // Interface, time (two words), captured and original length; then our header.
      try block.skip(12)
      let captured = try block.read(UInt32.self)
      #expect(try block.read(UInt32.self) == captured)
      let kind = try block.read(UInt8.self)
      let direction = try block.read(UInt8.self)
      try block.skip(2)
      let channel = try block.read(UInt32.self)
      try block.skip(8)
      let rest = try block.take(Int(captured) - 16)
      let bytes = unsafe rest.withUnsafeBytes { unsafe [UInt8]($0) }
      records.append(
        Record(kind: kind, isToGuest: direction == 1, channel: channel, bytes: bytes))
    }
    #expect(types.prefix(2) == [0x0A0D_0D0A, 1])
    return records
  }

  @Test func messagesAndPacketsAreInTheFileInTheirOrder() async throws {
    let path = socketPath("capture") + ".pcapng"
    defer { removeFile(path) }
    var configuration = SimulatedHost.Configuration()
    configuration.capture = try Capture(path: path)
    let host = try SimulatedHost(
      path: socketPath("capture"), configuration, devices: [HostDevice(EchoVSP())])
    let bus = try await SimulatedBus.connect(path: host.path)
    let worker = try Worker(.init(name: "echo"))
    let transport = try #require(bus.devices.first)
    let device = Device(transport, workers: [worker])
    let received = try await countEchoes(of: 10, on: device)
    #expect(received == 10)
    await device.close()
    await bus.disconnect()
    worker.stop()
    host.stop()

    let records = try Self.read(path)
    let messages = records.filter { $0.kind == 1 }
    // The message types, which are their first byte. The ring's GPADL has 65 words: 27 in the
    // header, 28 in a body, 10 in another.
    let types = messages.map { $0.bytes.first }
    #expect(types.starts(with: [14, 15, 3, 1, 4, 8, 9, 9, 10, 5, 6]))
    #expect(messages.map(\.isToGuest).starts(with: [false, true, false, true, true]))
    let packets = records.filter { $0.kind == 2 && $0.channel == 1 }
    #expect(packets.count { !$0.isToGuest } == 10)
    #expect(packets.count { $0.isToGuest } == 10)
    // The echo's first number is 0, and the tenth 9.
    #expect(packets.last?.bytes == [9, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test func aFileThatCannotBeWrittenIsRefused() {
    #expect(throws: Errno.self) { try Capture(path: "/nonexistent/capture.pcapng") }
  }
}
