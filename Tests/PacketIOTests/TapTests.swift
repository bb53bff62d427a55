// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import Testing

/// Why no TAP device can be had here, or nil.
private let obstacle: TapError? = {
  do throws(TapError) {
    _ = try TapDevice(name: freshName())
    return nil
  } catch {
    return error
  }
}()

private func freshName() -> String { "vt" + String(UInt32.random(in: 0...UInt32.max), radix: 36) }

@Suite struct TapNameTests {
  private func error(_ name: String, queues: Int = 1) -> TapError? {
    do throws(TapError) {
      _ = try TapDevice(name: name, queueCount: queues)
      return nil
    } catch {
      return error
    }
  }

  @Test func badNamesAreRefusedBeforeAnythingIsOpened() {
    #expect(error("sixteen-bytes-is") == .nameTooLong("sixteen-bytes-is"))
    for name in ["", ".", "..", "a b", "a/b", "a:b", "tap%d", "a\nb"] {
      #expect(error(name) == .badName(name))
    }
    #expect(error("tap0", queues: 0) == .tooManyQueues(0))
    #expect(error("tap0", queues: 257) == .tooManyQueues(257))
  }
}

@Suite(.enabled(if: obstacle == nil, "\(obstacle.map { "\($0)" } ?? "")")) struct TapTests {
  @Test func theInterfaceGoesWithTheValue() throws {
    let name = freshName()
    do {
      let tap = try TapDevice(name: name, queueCount: 4)
      #expect(tap.queueCount == 4)
      #expect(!tap.isPersistent)
      #expect(interfaceExists(name))
    }
    #expect(!interfaceExists(name))
  }

  @Test func aLivingProgramsDeviceIsNotJoined() throws {
    let tap = try TapDevice(name: freshName())
    #expect(throws: TapError.exists(tap.name)) { try TapDevice(name: tap.name) }
    // Nor is what is no TAP device.
    #expect(throws: TapError.exists("lo")) { try TapDevice(name: "lo") }
  }

  @Test func mtuAndAddress() throws {
    let tap = try TapDevice(name: freshName())
    try tap.setMTU(9000)
    #expect(try tap.mtu == 9000)
    #expect(throws: TapError.mtuOutOfRange(67)) { try tap.setMTU(67) }
    #expect(throws: TapError.mtuOutOfRange(65522)) { try tap.setMTU(65522) }
    try tap.setMTU(65521)
    let address = try #require(MACAddress("00:15:5d:01:02:03"))
    try tap.setAddress(address)
    #expect(try tap.address == address)
    let group = try #require(MACAddress("01-00-5e-00-00-01"))
    #expect(throws: TapError.badAddress(group)) { try tap.setAddress(group) }
  }

  @Test func framesBothWays() throws {
    let tap = try TapDevice(name: freshName())
    try tap.setOffloads([.checksum, .tcpIPv4, .tcpIPv6])
    try tap.setUp(true)
    try tap.setCarrier(true)
    let stack = try #require(RawInterface(tap.name))
    var queue = try tap.queue(0)

    let frame = Frames.udp + [UInt8](repeating: 0, count: 15)
    let writing = unsafe queue.write(frame.span.bytes)
    #expect(writing == .written)
    #expect(stack.receive(beginning: Frames.udp) == frame)

    #expect(stack.send(frame))
    var memory = [UInt8](repeating: 0, count: 4 * 2048)
    var found: [[UInt8]] = []
    // The stack speaks IPv6 of its own on an interface that comes up.
    while !found.contains(frame), waitForInput(queue.rawValue) {
      var places: [(Int, Int, FrameOffload)] = []
      do {
        var span = memory.mutableSpan
        var bytes = unsafe span.mutableBytes
        let count = queue.readBurst(into: &bytes, stride: 2048) { places.append(($0, $1, $2)) }
        #expect(count == places.count)
      }
      found += places.map { [UInt8](memory[$0.0..<$0.0 + $0.1]) }
    }
    #expect(found.contains(frame))
    let counters = queue.counters
    #expect(counters.framesWritten == 1)
    #expect(counters.framesRead == UInt64(found.count))
    #expect(counters.readErrors == 0)
  }

  /// A frame of the stack that is larger than the reader's memory is lost, and said to be.
  @Test func aFrameThatDoesNotFitIsCounted() throws {
    let tap = try TapDevice(name: freshName())
    try tap.setUp(true)
    let stack = try #require(RawInterface(tap.name))
    var queue = try tap.queue(0)
    #expect(stack.send(Frames.udp + [UInt8](repeating: 1, count: 1000)))
    var memory = [UInt8](repeating: 0, count: 256)
    while queue.counters.readErrors == 0, waitForInput(queue.rawValue) {
      var span = memory.mutableSpan
      var bytes = unsafe span.mutableBytes
      let reading = queue.read(into: &bytes)
      #expect(reading != .ended)
    }
    #expect(queue.counters.readErrors == 1)
  }

  @Test func anInterfaceThatIsDownTakesNoFrame() throws {
    let tap = try TapDevice(name: freshName())
    var queue = try tap.queue(0)
    let frame = Frames.udp
    let writing = unsafe queue.write(frame.span.bytes)
    #expect(writing == .dropped)
    #expect(queue.counters.writeErrors == 1)
  }
}
