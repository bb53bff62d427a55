// SPDX-License-Identifier: Apache-2.0

import CLinux
import Synchronization
import SystemPackage

@testable import Platform
@testable import SimulatedHost
@testable import SimulatedLink
@testable import VMBus

/// The bytes that a lying host is made of. What is missing at the end is zero, which is the truth.
struct LyingBytes {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isEmpty: Bool { position >= bytes.count }

  mutating func next() -> UInt8 {
    defer { position += 1 }
    return position < bytes.count ? bytes[position] : 0
  }

  mutating func take(_ count: Int) -> [UInt8] { (0..<count).map { _ in next() } }
}

/// The untrusted host of a machine with a paravisor: it answers what the paravisor asks, and says in
/// between what its bytes tell it to. Everything of it runs on one thread.
@safe
final class LyingHost: @unchecked Sendable {
  let path: String
  private let worker: Worker
  private let listener: Box
  private var sessions: [Int32: LyingSession] = [:]
  private let script = Lock(LyingBytes([]))
  /// Always ready, so that each turn of the thread sends a message.
  private let flood: EventBox?

  private final class Box: Sendable {
    let listener: PacketListener
    init(_ path: String) throws(Errno) { listener = try PacketListener(path: path) }
  }

  init(floods: Bool = false) throws {
    path = "/tmp/vmbus-test-lying-\(UInt32.random(in: 0 ... .max)).sock"
    flood = floods ? try EventBox() : nil
    listener = try Box(path)
    worker = try Worker(.init(name: "lying-host", spinRounds: 0))
    worker.watch(listener.listener.owned.rawValue) { [weak self] in self?.accept() }
    guard let flood else { return }
    flood.event.signal()
    worker.watch(flood.event.rawValue) { [weak self] in
      for session in self?.sessions.values.map(\.self) ?? [] { session.sayAgain() }
    }
  }

  /// From the next paravisor on it is made of these bytes.
  func play(_ bytes: [UInt8]) { script.withLock { $0 = LyingBytes(bytes) } }

  func stop() { worker.stop() }

  private func accept() {
    while let socket = try? listener.listener.accept() {
      let number = socket.rawValue
      let session = LyingSession(socket, script.withLock { $0 })
      sessions[number] = session
      worker.watch(number) { [weak self] in
        guard !session.serve() else { return }
        self?.worker.unwatch(number)
        self?.sessions[number] = nil
      }
    }
  }
}

/// One paravisor of a lying host, whose thread it belongs to.
@safe
final class LyingSession: @unchecked Sendable {
  private let socket: PacketSocket
  private var bytes: LyingBytes
  private var server: ControlServer
  private var memory: GuestMemory?
  private var interrupt: EventBox?
  private var slot: UnsafeMutableRawPointer?
  /// Messages that wait until the slot is free.
  private var waiting: [[UInt8]] = []
  private var hasContact = false

  init(_ socket: consuming PacketSocket, _ bytes: LyingBytes) {
    self.socket = socket
    self.bytes = bytes
    server = ControlServer(ServerConfiguration())
    for index in 0..<2 + self.bytes.next() % 3 {
      var offer = OfferChannel()
      offer.interfaceID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a001"
      offer.instanceID = GUID(wireBytes: InlineArray { $0 == 0 ? index : 0x77 })
      offer.flags = OfferFlags(rawValue: UInt16(self.bytes.next()))
      _ = try? server.offer(offer)
    }
  }

  /// Answers a call. Returns false when the paravisor has gone, or is thrown out.
  func serve() -> Bool {
    guard let message = try? socket.receive(),
      let header = try? LinkHeader(parsing: message.bytes)
    else { return false }
    let body = Array(message.bytes.dropFirst(LinkHeader.byteCount))
    switch LinkCall(rawValue: header.call) {
    case .join: guard join(body, message) else { return false }
    case .setSynIC: setSynIC(body)
    case .postMessage:
      // Refused without a word, or not taken.
      let lie = bytes.next()
      guard answer(lie == 0xFF ? .insufficientBuffers : .success) else { return false }
      if lie != 0xFF, let post = try? LinkPost(parsing: body) {
        take(Array(body.dropFirst(LinkPost.byteCount).prefix(Int(post.payloadByteCount))))
      }
      return bytes.next() != 0xFE
    case .endOfMessage:
      guard answer(.success) else { return false }
      deliver()
      return true
    case .openHostLink: return answer(.accessDenied)
    default: break
    }
    return answer(.success)
  }

  private func answer(_ status: HypercallStatus) -> Bool {
    (try? socket.send(LinkAnswer(status).wireBytes)) != nil
  }

  private func join(_ body: [UInt8], _ message: SocketMessage) -> Bool {
    guard let join = try? LinkJoin(parsing: body) else { return false }
    let regions = (0..<Int(join.regionCount)).compactMap {
      try? LinkRegion(
        parsing: Array(body.dropFirst(LinkJoin.byteCount + $0 * LinkRegion.byteCount)))
    }
    memory = try? GuestMemory(
      regions, boundaryBit: join.boundaryBit, fileCount: Int(join.fileCount), from: message)
    let last = Int(join.fileCount) + Int(join.processorCount) - 1
    if let event = message.takeDescriptor(last) { interrupt = EventBox(event) }
    return memory != nil && interrupt != nil
  }

  private func setSynIC(_ body: [UInt8]) {
    guard let registers = try? LinkSynIC(parsing: body),
      let page = try? unsafe memory?.page(registers.messagePage, in: .hostVisible).start
    else { return }
    unsafe slot = page + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
  }

  // MARK: - What it says

  private func take(_ message: [UInt8]) {
    hasContact = true
    perform(server.receive(unsafe message.span.bytes, origin: .untrusted))
  }

  private func perform(_ actions: [ServerAction]) {
    for action in actions {
      let status: ControlStatus = bytes.next() < 0xF0 ? .success : .unsuccessful
      switch action {
      case .post(let message, _): post(message.array)
      case .open(let request): perform(server.openCompleted(request.channel, status))
      case .close(let id): perform(server.closeCompleted(id))
      case .createGPADL(_, let id): perform(server.gpadlCompleted(id, status))
      case .tearDownGPADL(_, let id): perform(server.gpadlTornDown(id))
      case .modify(let id, _): perform(server.modifyCompleted(id, status))
      default: break
      }
    }
  }

  /// The truth, in most cases; or something else before it, behind it, or in its place.
  private func post(_ message: [UInt8]) {
    let lie = bytes.next()
    switch lie {
    case 0x80..<0xA0: break
    case 0xA0..<0xB8:
      say(changed(message))
      say(message)
    case 0xB8..<0xC8: say(changed(message))
    case 0xC8..<0xD4:
      say(message)
      say(message)
    case 0xD4..<0xF0:
      // Any type there is, and some that there are not.
      let other = [bytes.next() % 32, 0, 0, 0, 0, 0, 0, 0] + bytes.take(Int(bytes.next() % 64))
      say(other)
      say(message)
    case 0xF0...:
      // One that it has not been asked about: an offer is taken back, or a channel's end.
      let revoked = ChannelID(UInt32(bytes.next() % 8))
      if let actions = try? server.revoke(revoked) { perform(actions) }
      say(message)
    default: say(message)
    }
  }

  private func changed(_ message: [UInt8]) -> [UInt8] {
    var message = message
    for _ in 0...bytes.next() % 4 {
      message[Int(bytes.next()) % message.count] = bytes.next()
    }
    // Cut short, sometimes.
    let cut = bytes.next()
    return cut < 0xE0 ? message : Array(message.prefix(Int(bytes.next()) % message.count + 1))
  }

  /// Something that nobody has asked for, as soon as the last thing was heard.
  func sayAgain() {
    if hasContact, waiting.isEmpty { say([UInt8](repeating: 0xEE, count: 16)) }
  }

  private func say(_ message: [UInt8]) {
    waiting.append(message)
    deliver()
  }

  private func deliver() {
    // Safe: a page of the paravisor, 4096 bytes, which `memory` keeps, and the slot lies within it.
    guard let message = waiting.first, let slot = unsafe slot else { return }
    let type = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
    if unsafe type.pointee.load(ordering: .sequentiallyConsistent) != SynIC.noMessage {
      let flags = unsafe (slot + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
      unsafe flags.pointee.bitwiseOr(
        UInt32(SynICMessageHeader.messagePending) << 8, ordering: .sequentiallyConsistent)
      guard unsafe type.pointee.load(ordering: .sequentiallyConsistent) == SynIC.noMessage else {
        return
      }
    }
    waiting.removeFirst()
    for (index, byte) in message.prefix(SynIC.maximumPayloadByteCount).enumerated() {
      unsafe slot.storeBytes(of: byte, toByteOffset: 16 + index, as: UInt8.self)
    }
    // Some say that a message is longer than a slot.
    let count = bytes.next() == 0xFD ? 0xFF : min(message.count, SynIC.maximumPayloadByteCount)
    unsafe slot.storeBytes(of: UInt8(count), toByteOffset: 4, as: UInt8.self)
    unsafe slot.storeBytes(of: waiting.isEmpty ? 0 : 1, toByteOffset: 5, as: UInt8.self)
    unsafe type.pointee.store(SynIC.vmbusMessage, ordering: .sequentiallyConsistent)
    interrupt?.event.signal()
  }
}
