// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import NetworkVSC
import PacketIO
import Platform
import VSC

/// One queue of the device joined with one queue of the TAP device: what comes out of either goes into
/// the other one. Nothing is allocated for a frame; each costs the TAP device's system call.
@safe
struct TapLoop<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  private var queue: NetworkQueue<Ring, External>
  private var tap: TapQueue
  private let shared: TapShared
  /// What is asked for each frame, without a look at the shared object.
  private let mtu: Int
  private let isCaptured: Bool
  private let worker: Worker
  private let wait: TapWait
  private var burst = ReceiveBurst(capacity: 64)
  /// The stack's frame that had no room yet, and what is said of it.
  private var waiting: FrameBuffer<External>?
  private var waitingInfo = PerPacketInfo()
  /// A frame of the host that must be changed for the stack: private memory (law 1).
  private let copy: UnsafeMutableRawBufferPointer
  private var isWaitingForFrames = true
  private var counters = TapCounters()

  init(
    _ queue: consuming NetworkQueue<Ring, External>, _ tap: consuming TapQueue,
    _ wait: TapWait, _ shared: TapShared, _ worker: Worker
  ) {
    self.queue = queue
    self.tap = tap
    self.wait = wait
    self.shared = shared
    mtu = shared.mtu
    isCaptured = shared.capture != nil
    self.worker = worker
    unsafe copy = .allocate(byteCount: 1 << 17, alignment: 64)
    wait.start(on: worker)
  }

  deinit {
    wait.stop(on: worker)
    unsafe copy.deallocate()
  }

  // For the reason that `Pollable.poll` tells.
  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    _ = queue.receive(into: &burst)
    while let packet = burst.popFirst() { deliver(packet) }
    let sent = queue.isReady ? forward(budget) : 0
    queue.publish()
    if queue.failure != nil || counters.isEnded { return nil }
    return sent &+ Int(truncatingIfNeeded: queue.received &- before)
  }

  mutating func arm() -> Bool {
    if queue.arm() { return true }
    // A frame that has no room waits for the host's interrupt; others of the stack must not wake the
    // worker until then, since it could do nothing for them.
    let isWanted = waiting == nil
    guard isWanted != isWaitingForFrames else { return false }
    isWaitingForFrames = isWanted
    if isWanted { wait.start(on: worker) } else { wait.stop(on: worker) }
    return false
  }

  mutating func disarm() { queue.disarm() }
  var nextDeadline: UInt64 { queue.nextDeadline }
  mutating func expire(now: UInt64) { queue.expire(now: now) }

  /// What this queue did so far.
  var report: InterfaceReport.Tap {
    let frames = tap.counters
    return InterfaceReport.Tap(
      framesRead: frames.framesRead, bytesRead: frames.bytesRead,
      framesWritten: frames.framesWritten, bytesWritten: frames.bytesWritten,
      readErrors: frames.readErrors, writeErrors: frames.writeErrors,
      largeRead: counters.largeRead, largeWritten: counters.largeWritten,
      unsent: counters.unsent)
  }

  // MARK: - From the host to the stack

  private mutating func deliver(_ packet: consuming ReceivedPacket) {
    let info = packet.info
    // Ethernet's header and a tag are no part of a packet.
    let isLarge = packet.byteCount > mtu &+ 18
    let isPlain =
      packet.segmentCount == 1 && !isLarge && !isCaptured
      && info.present.isDisjoint(with: .vlan)
      && !info.checksum.contains(.tcpValueInvalid)
    if isPlain {
      // The kernel copies it once, out of the host's reach, and looks at its copy.
      let isVerified =
        info.present.contains(.checksum)
        && !info.checksum.isDisjoint(with: [.tcpSucceeded, .udpSucceeded])
      let count = packet.byteCount
      write(packet.bytes, FrameOffload(checksum: isVerified ? .verified : .complete), count)
      return
    }
    let room = unsafe copy.count - VLANTag.byteCount
    guard packet.byteCount <= room else {
      counters.unsent &+= 1
      return
    }
    // Safe: the memory is this loop's own, and the frame with its tag fits into it.
    var target = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: copy[0..<room]))
    var count = packet.copy(into: &target)
    var frame = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: copy[0..<count]))
    var offload = FrameOffload(
      receiving: info, &frame, coalescedBelow: isLarge || packet.segmentCount > 1 ? mtu : 0)
    if info.present.contains(.vlan) {
      count += VLANTag.byteCount
      frame = unsafe MutableRawSpan(
        _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: copy[0..<count]))
      VLANTag.insert(info.vlan.tag, into: &frame, &offload)
    }
    if isCaptured { shared.record(frame.bytes, offload, .received) }
    write(frame.bytes, offload, count)
  }

  private mutating func write(_ frame: RawSpan, _ offload: FrameOffload, _ count: Int) {
    if count > TapCounters.large { counters.largeWritten &+= 1 }
    if tap.write(frame, offload) == .ended { counters.isEnded = true }
  }

  // MARK: - From the stack to the host

  private mutating func forward(_ budget: Int) -> Int {
    var work = 0
    while work < budget {
      if waiting == nil {
        guard read() else { return work }
        work &+= 1
      }
      do throws(NetworkError) {
        try queue.send(&waiting, waitingInfo)
      } catch {
        if error == .wouldBlock { return work }
        counters.unsent &+= 1
        waiting = nil
      }
    }
    return work
  }

  /// Takes the stack's next frame. False when there is none, or no memory for it: completions bring
  /// some back.
  private mutating func read() -> Bool {
    while var buffer = queue.takeBuffer() {
      let reading = buffer.withMutableBytes(buffer.capacity) { tap.read(into: &$0) }
      switch reading {
      case .none: return false
      case .ended:
        counters.isEnded = true
        return false
      case .dropped: continue
      case .frame(let count, let offload):
        buffer.byteCount = count
        if count > TapCounters.large { counters.largeRead &+= 1 }
        if isCaptured { shared.record(buffer.bytes, offload, .sent) }
        var length = count
        let info = buffer.withMutableBytes(count) { rndisInfo(of: &$0, offload, &length) }
        buffer.byteCount = length
        guard let info else {
          counters.unsent &+= 1
          continue
        }
        waiting = consume buffer
        waitingInfo = info
        return true
      }
    }
    return false
  }
}

/// Says of a frame of the stack what RNDIS can say, and does the rest to it. Nil for one that can't be
/// sent.
///
/// - Parameter length: the frame's; it is shorter after the call when its tag was taken out.
@_lifetime(frame: copy frame)
private func rndisInfo(
  of frame: inout MutableRawSpan, _ offload: FrameOffload, _ length: inout Int
) -> PerPacketInfo? {
  var offload = offload
  guard let tag = VLANTag.remove(from: &frame, &offload) else {
    return PerPacketInfo(sending: &frame, offload)
  }
  length &-= VLANTag.byteCount
  var rest = frame._mutatingExtracting(first: length)
  var info = PerPacketInfo(sending: &rest, offload)
  info?.vlan = VLANInfo(tag: tag)
  return info
}

struct TapCounters {
  /// Frames above it are counted: only large sends are.
  static let large = 60000

  var largeRead: UInt64 = 0
  var largeWritten: UInt64 = 0
  var unsent: UInt64 = 0
  /// The TAP device is gone.
  var isEnded = false
}

/// Wakes a worker when the stack has frames. It has a descriptor of its own, which lives until the worker
/// has stopped to look at it.
final class TapWait: Sendable {
  private let owned: OwnedDescriptor

  init(_ owned: consuming OwnedDescriptor) { self.owned = owned }

  func start(on worker: Worker) {
    // The frames are taken by the poll that follows.
    worker.watch(owned.rawValue) { [self] in _ = self }
  }

  func stop(on worker: Worker) { worker.unwatch(owned.rawValue) }
}
