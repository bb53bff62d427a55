// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageVSC
import Synchronization
import TestSupport
import Testing

@testable import SimulatedHost
@testable import VSC

/// A storage device whose open channel goes to the test, and to no worker: it moves when the test says.
final class SteppedVSP: VSP {
  static let byteCount = 128 << 10
  private let storage: StorVSP
  private let channel = Lock<HostChannel?>(nil)

  init(instance: GUID, flags: OfferFlags) throws {
    var controller = SCSIController()
    let image = try DiskImage.inMemory(byteCount: UInt64(Self.byteCount))
    let isAttached = controller.attach(try SCSIDisk(image, identity: instance), lun: 0)
    #expect(isAttached)
    storage = StorVSP(controller, instance: instance, flags: flags)
  }

  var offer: OfferChannel { storage.offer }

  func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    var channel = Optional(channel)
    self.channel.withLock { $0 = channel.take() }
  }

  /// The channel that was opened last, served by hand.
  func server() throws -> SteppedServer {
    let channel = try unwrap(self.channel.withLock { $0.take() })
    return SteppedServer(channel, storage.core)
  }
}

/// The device's end of a channel.
final class SteppedServer {
  /// The guest's, as this side has it.
  let memory: GuestMemory
  private var server: StorVSPServer

  init(_ channel: consuming HostChannel, _ core: SCSICore) {
    memory = channel.memory
    let nexus = SCSINexus()
    core.join(nexus)
    server = StorVSPServer(
      channel: channel, target: SCSITarget(core, nexus: nexus), session: StorVSPSession(),
      announceReset: {})
  }

  /// Serves a packet, and commits.
  func step() {
    let work = server.poll(budget: 1)
    #expect(work == 1)
  }

  /// Serves what there is. Returns false when the guest has closed the channel.
  @discardableResult
  func run() -> Bool { server.poll(budget: 64) != nil }
}

/// A disk of the guest, of any pair of memories.
protocol SteppedDisk: AnyObject {
  var packets: Int { get }
  func start() throws
  func run(_ random: inout Numbers, _ watch: HostWatch) throws
}

/// The storage driver and its host, moved step by step by one thread. After each commit of either end
/// somebody looks at all that the host can see.
final class SteppedStorage<Ring: Visibility, External: Visibility>: SteppedDisk {
  private var queue: StorageQueue<Ring, External>
  private var pool: DMAPool<External>
  private let server: SteppedServer
  /// The secret, over and over.
  private let secrets: [UInt8]
  /// What is on the disk.
  private var disk = [UInt8](repeating: 0, count: SteppedVSP.byteCount)
  private var isFilled = false
  /// Requests so far.
  private(set) var packets = 0

  private struct Request {
    let isRead: Bool
    let offset: Int
    /// Where the device has its data.
    let address: UInt64
    var data: [UInt8]
  }

  init(
    _ channel: consuming Channel<Ring, External>, _ pool: consuming DMAPool<External>,
    _ server: SteppedServer, secret: [UInt8]
  ) throws {
    let answer = try unwrap(pool.take())
    queue = StorageQueue(channel, .init(depth: 8), answer: answer)
    self.pool = pool
    self.server = server
    secrets = (0..<8192).map { secret[$0 % secret.count] }
  }

  func start() throws {
    for _ in 0..<100 where !queue.isReady {
      expectNone(queue.next())
      queue.publish()
      server.run()
    }
    let isReady = queue.isReady
    #expect(isReady)
  }

  /// Sends some requests, lets the host serve them, and takes their completions.
  func run(_ random: inout Numbers, _ watch: HostWatch) throws {
    var requests: [Request] = []
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let count = Int.random(in: 1...16, using: &random) * 512
      let offset = Int.random(in: 0...(disk.count - count) / 512, using: &random) * 512
      let isRead = isFilled && Bool.random(using: &random)
      requests.append(try send(isRead, offset, count, watch))
    }
    isFilled = true
    for index in requests.indices {
      let request = requests[index]
      let range = request.offset..<request.offset + request.data.count
      if request.isRead {
        requests[index].data = Array(disk[range])
        watch.expect(requests[index].data, at: request.address, External.memory)
      } else {
        disk.replaceSubrange(range, with: request.data)
      }
      server.step()
      watch.look()
    }
    for request in requests { try complete(request, watch) }
    packets += requests.count
  }

  private func send(
    _ isRead: Bool, _ offset: Int, _ count: Int, _ watch: HostWatch
  ) throws -> Request {
    var buffer = Optional(try unwrap(pool.take(count)))
    let address = try address(of: &buffer)
    let (block, tag) = (UInt64(offset / 512), UInt64(packets))
    let request: Request
    if isRead {
      request = Request(
        isRead: true, offset: offset, address: address, data: Array(repeating: 0, count: count))
      try queue.read(at: block, blockCount: count / 512, into: &buffer, tag: tag)
    } else {
      let data = Array(secrets.prefix(count))
      request = Request(isRead: false, offset: offset, address: address, data: data)
      unsafe buffer?.copyIn(data.span.bytes)
      watch.expect(data, at: address, External.memory)
      try queue.write(at: block, blockCount: count / 512, from: &buffer, tag: tag)
    }
    queue.publish()
    watch.look()
    return request
  }

  /// The guest's address of a buffer.
  private func address(of buffer: inout DMABuffer<External>?) throws -> UInt64 {
    let taken = try unwrap(buffer.take())
    let address = unsafe taken.pageNumbers[0] << 12 + UInt64(taken.byteOffset)
    buffer = consume taken
    return address
  }

  private func complete(_ request: Request, _ watch: HostWatch) throws {
    var completion = try unwrap(queue.next())
    #expect(completion.result == .success(request.data.count))
    var buffer = Optional(try unwrap(completion.buffer.take()))
    if request.isRead {
      var bytes = [UInt8](repeating: 0, count: request.data.count)
      var span = bytes.mutableSpan
      var raw = unsafe span.mutableBytes
      buffer?.moveOut(from: 0, into: &raw)
      #expect(bytes == request.data)
    }
    buffer = nil
    watch.expect(
      Array(repeating: 0, count: request.data.count), at: request.address, External.memory)
    queue.publish()
    watch.look()
  }
}
