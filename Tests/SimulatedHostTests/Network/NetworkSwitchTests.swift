// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// Guests of one host that talk to each other through the switch, with what the device does to frames on
/// their way.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetworkSwitchTests {
  static let second: MACAddress = {
    var address = NetworkTestBed.address
    // The last byte is the next one.
    address.rawValue += 1 << 40
    return address
  }()

  /// Two guests that are up.
  static func pair(
    _ bed: NetworkTestBed, style: NetworkClient.Style = .linux
  ) throws -> (SmallGuest, SmallGuest) {
    (bed.guest, try SmallGuest(bed.host))
  }

  @Test func framesGoToTheGuestThatTheyName() throws {
    let bed = try NetworkTestBed(NetworkSwitch(), workers: 2)
    let guests = try [bed.guest, SmallGuest(bed.host), SmallGuest(bed.host)]
    var first = try NetworkClient(guests[0])
    var second = try NetworkClient(guests[1])
    var third = try NetworkClient(guests[2])
    try first.start()
    try second.start()
    try third.start()
    #expect(try second.query(0x0101_0101) == Self.second.wireBytes)
    // Broadcasts go to all but the sender.
    let broadcast = Wire.frame(to: .broadcast, from: 1)
    #expect(try first.sendRNDIS(Wire.packet(broadcast)) == 1)
    #expect(try second.receiveFrames().map(\.frame) == [broadcast])
    #expect(try third.receiveFrames().map(\.frame) == [broadcast])
    #expect(try first.isSilent())
    // The first station has sent, so its address is known.
    var answer = Wire.frame(from: 2)
    answer.replaceSubrange(0..<6, with: [2, 0, 0, 0, 0, 1])
    // It is no address of the guest's interface, which takes it only when it is promiscuous.
    #expect(try first.setFilter(0x20) == 0)
    #expect(try third.setFilter(0x20) == 0)
    #expect(try second.sendRNDIS(Wire.packet(answer)) == 1)
    #expect(try first.receiveFrames().map(\.frame) == [answer])
    #expect(try third.isSilent())
    // Unknown addresses go everywhere.
    let unknown = Wire.frame(to: MACAddress("02:00:00:00:00:77") ?? .broadcast, from: 2)
    #expect(try second.sendRNDIS(Wire.packet(unknown)) == 1)
    #expect(try first.receiveFrames().map(\.frame) == [unknown])
    #expect(try third.receiveFrames().map(\.frame) == [unknown])
    // A guest that is gone is forgotten, and its place is used again.
    try guests[2].close(third.channel)
    #expect(try first.sendRNDIS(Wire.packet(broadcast)) == 1)
    #expect(try second.receiveFrames().map(\.frame) == [broadcast])
    var again = try NetworkClient(guests[2])
    try again.start()
    #expect(try first.sendRNDIS(Wire.packet(broadcast)) == 1)
    #expect(try again.receiveFrames().map(\.frame) == [broadcast])
  }

  @Test func filtersSayWhatAGuestGets() throws {
    let bed = try NetworkTestBed(NetworkSwitch())
    let guests = try [bed.guest, SmallGuest(bed.host)]
    var sender = try NetworkClient(guests[0])
    var receiver = try NetworkClient(guests[1])
    try sender.start()
    try receiver.start(filter: 1)
    let directed = Wire.frame(to: Self.second)
    let group = Wire.frame(to: MACAddress("01:00:5e:00:00:01") ?? .broadcast)
    let broadcast = Wire.frame(to: .broadcast)
    for (filter, expected) in [
      (1, [directed]), (2, [group]), (4, [group]), (8, [broadcast]),
      (0xB, [directed, group, broadcast]), (0x20, [directed, group, broadcast]),
    ] as [(UInt32, [[UInt8]])] {
      #expect(try receiver.setFilter(filter) == 0)
      for frame in [directed, group, broadcast] {
        #expect(try sender.sendRNDIS(Wire.packet(frame)) == 1)
      }
      var received: [[UInt8]] = []
      while received.count < expected.count {
        received += try receiver.receiveFrames().map(\.frame)
      }
      #expect(received == expected, "filter \(filter)")
    }
    #expect(try receiver.isSilent())
  }

  /// A TCP segment of `payload` bytes from the first guest to the second, without its checksums.
  static func tcp(payload: Int, flags: UInt8 = 0x18, zeroLength: Bool = false) -> [UInt8] {
    let total = zeroLength ? 0 : 40 + payload
    return second.wireBytes + NetworkTestBed.address.wireBytes + [0x08, 0x00]
      + [0x45, 0, UInt8(total >> 8), UInt8(total & 0xFF), 0x12, 0x34, 0x40, 0, 64, 6, 0, 0]
      + [10, 0, 0, 1, 10, 0, 0, 2]
      + [0x30, 0x39, 0, 80, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]
      + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 7) }
  }

  /// The one's complement sum over 16-bit words.
  static func sum(_ bytes: [UInt8]) -> UInt32 {
    var sum: UInt32 = 0
    for (index, byte) in bytes.enumerated() {
      sum += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte)
    }
    while sum > 0xFFFF { sum = (sum & 0xFFFF) + (sum >> 16) }
    return sum
  }

  /// Whether both checksums of a TCP segment over IPv4 are right, and its length.
  static func isRight(_ frame: [UInt8]) -> Bool {
    let segment = Array(frame[34...])
    let pseudo =
      Array(frame[26..<34]) + [0, 6, UInt8(segment.count >> 8), UInt8(segment.count & 0xFF)]
    return sum(Array(frame[14..<34])) == 0xFFFF && sum(pseudo + segment) == 0xFFFF
      && Int(frame[16]) << 8 | Int(frame[17]) == frame.count - 14
  }

  @Test func checksumsAreCompletedOnTheWay() throws {
    let bed = try NetworkTestBed(NetworkSwitch())
    var sender = try NetworkClient(bed.guest)
    var receiver = try NetworkClient(try SmallGuest(bed.host))
    try sender.start()
    try receiver.start()
    // IPv4, TCP, IP header; the TCP header 34 bytes behind the start.
    let info = Wire.info(0, 0x15 | 34 << 16)
    #expect(try sender.sendRNDIS(Wire.packet(Self.tcp(payload: 101), info: info)) == 1)
    let received = try #require(try receiver.receiveFrames().first)
    #expect(Self.isRight(received.frame) && received.frame.count == 155)
    // TCP and IP succeeded.
    #expect(received.info[0] == 0x28)
    // A frame that says nothing is passed on as it is, and nothing is said of it.
    #expect(try sender.sendRNDIS(Wire.packet(Self.tcp(payload: 9))) == 1)
    let plain = try #require(try receiver.receiveFrames().first)
    #expect(plain.frame == Self.tcp(payload: 9) && plain.info[0] == 0)
    // Tags go beside the frame, as they came.
    #expect(try sender.sendRNDIS(Wire.packet(Self.tcp(payload: 9), info: Wire.info(6, 0x64B))) == 1)
    #expect(try receiver.receiveFrames().first?.info[6] == 0x64B)
  }

  /// Sends a frame of several segments from the data pages, in a range for each page.
  static func sendLarge(_ client: inout NetworkClient, _ frame: [UInt8]) throws -> UInt32 {
    let info = Wire.info(2, 1460 | 34 << 20 | 1 << 30)
    let message = Wire.packet(frame, info: info)
    client.put(message, at: 0)
    return try client.send(
      ranges: stride(from: 0, to: message.count, by: 4096).map {
        ($0, min(4096, message.count - $0))
      })
  }

  @Test func largeFramesAreCutForAGuestThatTakesNone() throws {
    let bed = try NetworkTestBed(NetworkSwitch())
    var sender = try NetworkClient(bed.guest)
    var receiver = try NetworkClient(try SmallGuest(bed.host))
    try sender.start()
    try receiver.start()
    // Linux leaves the IP length of a large send zero. 10000 bytes are 6 segments and 1240 bytes.
    let frame = Self.tcp(payload: 10000, flags: 0x99, zeroLength: true)
    #expect(try Self.sendLarge(&sender, frame) == 1)
    var segments: [[UInt8]] = []
    while segments.count < 7 { segments += try receiver.receiveFrames().map(\.frame) }
    #expect(segments.map(\.count) == [UInt32](repeating: 1514, count: 6).map(Int.init) + [1294])
    #expect(segments.allSatisfy(Self.isRight))
    #expect(segments.flatMap { $0[54...] } == Array(frame[54...]))
    // Sequence numbers and identifications count on; FIN and PSH are the last one's, CWR the first's.
    #expect(segments.map { Int($0[40]) << 8 | Int($0[41]) } == (0..<7).map { 0x1000 + $0 * 1460 })
    #expect(segments.map { $0[19] } == (0..<7).map { 0x34 + $0 })
    #expect(
      segments.map { $0[47] } == [0x90, 0x10, 0x10, 0x10, 0x10, 0x10, 0x19])
  }

  @Test func largeFramesGoInPartsToAGuestThatTakesThem() throws {
    let bed = try NetworkTestBed(NetworkSwitch())
    var sender = try NetworkClient(bed.guest)
    var receiver = try NetworkClient(try SmallGuest(bed.host))
    try sender.start()
    try receiver.start()
    let offloads = try #require(try receiver.query(0xFC01_020D))
    // Revision 3: 156 bytes, with coalesced receive for both.
    #expect(offloads.count == 156 && Array(offloads[0..<4]) == [0xA7, 3, 156, 0])
    #expect(offloads[144] == 1 && offloads[145] == 1)
    let parameters: [UInt8] =
      [0x80, 3, 28, 0, 4, 4, 4, 4, 4, 0, 0, 2, 2, 0, 0, 0]
      + [0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0]
    #expect(try receiver.set(0xFC01_020C, parameters) == 0)
    let frame = Self.tcp(payload: 10000, zeroLength: true)
    #expect(try Self.sendLarge(&sender, frame) == 1)
    let parts = try receiver.receiveFrames()
    // In one packet: the first part, those between, the last one.
    #expect(parts.map(\.frame.count) == [1514, 1514, 1514, 1514, 1514, 1514, 970])
    #expect(
      parts.map { $0.info[0x8000_0001] } == [0x301, 0x101, 0x101, 0x101, 0x101, 0x101, 0x501])
    let whole = parts.flatMap(\.frame)
    #expect(Self.isRight(whole) && whole.count == frame.count)
    #expect(Array(whole[54...]) == Array(frame[54...]))
    #expect(parts[0].info[0] == 0x28)
    #expect(bed.vsp.records.values.map { $0.queues[0].counters.largeFromGuest }.max() == 1)
    // A guest that takes them back gets segments again.
    var none = parameters
    (none[22], none[23]) = (1, 1)
    #expect(try receiver.set(0xFC01_020C, none) == 0)
    #expect(try Self.sendLarge(&sender, frame) == 1)
    #expect(try receiver.receiveFrames().first?.frame.count == 1514)
  }

  @Test func jumboFramesForAGuestWithAJumboMTU() throws {
    var configuration = AdapterConfiguration()
    configuration.mtu = 9000
    let bed = try NetworkTestBed(NetworkSwitch(), configuration)
    var style = NetworkClient.Style.linux
    style.frameByteCount = 9014
    style.receivePages = 128
    var sender = try NetworkClient(bed.guest, style)
    var receiver = try NetworkClient(try SmallGuest(bed.host), style)
    try sender.start()
    try receiver.start()
    #expect(receiver.pieceByteCount == 9306)
    #expect(try receiver.query(0x0001_0106) == Wire.words(9000))
    let frame = Wire.frame(to: Self.second, byteCount: 9014)
    #expect(try sender.sendRNDIS(Wire.packet(frame)) == 1)
    #expect(try receiver.receiveFrames().map(\.frame) == [frame])
    // Another guest, with a small one, can't take it.
    var small = try NetworkClient(try SmallGuest(bed.host))
    try small.start()
    #expect(try sender.sendRNDIS(Wire.packet(Wire.frame(to: .broadcast, byteCount: 9014))) == 1)
    #expect(try receiver.receiveFrames().count == 1)
    #expect(try small.isSilent())
  }
}
