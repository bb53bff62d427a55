// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import NetworkProtocol
import NetworkVSC
import PacketIO
import Platform
import Synchronization
import SystemPackage
import VSC

struct PcapCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pcap",
    abstract: "Captures what the device receives, as Wireshark reads it (pcapng).",
    discussion: """
      It opens the device, which nobody else may have open; 'vsc-network tap --pcap' captures what \
      passes through a network interface. It ends on SIGINT or SIGTERM, or as --count and --time say.
      """)

  @OptionGroup var options: NetworkOptions

  @Argument(help: "The file, made anew; - is standard output.")
  var file: String

  @Option(help: ArgumentHelp("End after so many frames.", valueName: "count"))
  var count: UInt64?

  @Option(help: ArgumentHelp("End after so many seconds.", valueName: "seconds"))
  var time: Double?

  @Flag(help: "Ask the host for the frames of others, too.")
  var promiscuous = false

  func validate() throws {
    guard count != 0 else { throw ValidationError("--count must be 1 or more.") }
    guard 0.001...86400 ~= time ?? 1 else {
      throw ValidationError("--time must be 0.001 to 86400 seconds.")
    }
  }

  func run() async throws {
    try Termination.handle()
    let capture: FrameCapture
    do throws(Errno) {
      capture = try FrameCapture(path: file, interface: "vmbus")
    } catch {
      throw ProgramFailure(.cannotCreate, "\(file): \(error)")
    }
    let user = PcapUser(capture, limit: count ?? .max)
    do {
      try await withDevice(.network, options.driver, workers: options.queues) { device in
        try await record(device, user)
      }
    } catch {
      throw ProgramFailure.wrapping(error)
    }
    do throws(Errno) {
      try capture.flush()
    } catch {
      throw ProgramFailure(.cannotCreate, "\(file): \(error)")
    }
    if let failure = user.failure {
      throw ProgramFailure(.cannotCreate, "\(file): \(failure)")
    }
    printError("\(capture.frames) frames")
  }

  private func record(_ device: Device, _ user: PcapUser) async throws {
    var configuration = options.configuration
    if promiscuous { configuration.filter.insert(.promiscuous) }
    let chosen = configuration
    let error = try await untilTermination {
      let interface = try await NetworkVSC.open(device, chosen, user: user, events: { _ in })
      if let time {
        Task {
          try? await Task.sleep(for: .seconds(time))
          user.finished.keep(())
        }
      }
      return try await withThrowingTaskGroup(of: NetworkError?.self) { group in
        group.addTask { await interface.waitUntilEnded() }
        group.addTask {
          await withTaskCancellationHandler {
            await user.finished.value()
          } onCancel: {
            user.finished.keep(())
          }
          return nil
        }
        defer { group.cancelAll() }
        return try await group.next() ?? nil
      }
    }
    if let error = error ?? nil { throw error }
  }
}

/// Has each queue's frames written to one file.
final class PcapUser: NetworkQueueUser {
  let finished = Promise<Void>()
  private let capture: FrameCapture
  private let limit: UInt64
  private let error = Lock<Errno?>(nil)

  init(_ capture: FrameCapture, limit: UInt64) {
    self.capture = capture
    self.limit = limit
  }

  var failure: Errno? { error.withLock { $0 } }

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    _ = worker.attach(PcapLoop(queue, self))
  }

  func record(_ frame: RawSpan, _ offload: FrameOffload) {
    guard !finished.isKept else { return }
    do throws(Errno) {
      try capture.record(frame, offload, direction: .received)
      if capture.frames >= limit { finished.keep(()) }
    } catch {
      self.error.withLock { $0 = $0 ?? error }
      finished.keep(())
    }
  }

  func flush() { try? capture.flush() }
}

@safe
struct PcapLoop<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  private var queue: NetworkQueue<Ring, External>
  private let user: PcapUser
  private var burst = ReceiveBurst(capacity: 64)
  /// Private memory for one frame (law 1).
  private let copy: UnsafeMutableRawBufferPointer

  init(_ queue: consuming NetworkQueue<Ring, External>, _ user: PcapUser) {
    self.queue = queue
    self.user = user
    unsafe copy = .allocate(byteCount: 1 << 18, alignment: 64)
  }

  deinit { unsafe copy.deallocate() }

  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    _ = queue.receive(into: &burst)
    while let packet = burst.popFirst() { take(packet) }
    queue.publish()
    if queue.failure != nil { return nil }
    return Int(truncatingIfNeeded: queue.received &- before)
  }

  private func take(_ packet: consuming ReceivedPacket) {
    // Safe: the memory is this loop's own; a longer frame is cut off.
    var target = unsafe MutableRawSpan(_unsafeBytes: copy)
    let count = packet.copy(into: &target)
    var frame = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: copy[0..<count]))
    let offload = FrameOffload(receiving: packet.info, &frame)
    user.record(frame.bytes, offload)
  }

  /// Before the worker sleeps, the file is what was received.
  mutating func arm() -> Bool {
    user.flush()
    return queue.arm()
  }
  mutating func disarm() { queue.disarm() }
  var nextDeadline: UInt64 { queue.nextDeadline }
  mutating func expire(now: UInt64) { queue.expire(now: now) }
}
