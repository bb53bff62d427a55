// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
import VSC

/// The start-up, apart from the data path.
extension StorageQueue {
  @usableFromInline
  mutating func begin() {
    phase = .starting
    do throws(StorageError) {
      try perform(startup.begin())
    } catch {
      fail(error)
    }
  }

  /// Takes the completion of a packet or a command of the start-up.
  @usableFromInline
  mutating func continueStartup(
    _ request: consuming CompletedRequest<StorageRequest<External>>, _ packet: Packet
  ) {
    let (kind, byteCount) = (request.payload.kind, request.payload.byteCount)
    answer = request.payload.buffer.take() ?? answer.take()
    guard phase == .starting else { return }
    do throws(StorageError) {
      if kind == .negotiation {
        var next = startup
        let step = try next.negotiated(channel.payload(of: packet))
        startup = next
        try perform(step)
      } else {
        let result = Self.outcome(channel.payload(of: packet), packetByteCount, asked: byteCount)
        // A private copy: the host may see the buffer, and change it while it is looked at.
        var copy = InlineArray<256, UInt8>(repeating: 0)
        let moved = min((try? result.get()) ?? 0, copy.count)
        if let buffer = answer.take() {
          var target = copy.mutableSpan
          var bytes = unsafe target.mutableBytes
          var part = bytes._mutatingExtracting(first: moved)
          // No data of anybody's, so it is not counted with that.
          unsafe part.withUnsafeMutableBytes { part in
            unsafe buffer.bytes.withUnsafeBytes { bytes in
              unsafe part.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes.prefix(part.count)))
            }
          }
          answer = consume buffer
        }
        try perform(startup.answered(result, unsafe copy.span.bytes.extracting(first: moved)))
      }
    } catch {
      fail(error)
    }
  }

  private mutating func perform(_ step: StorageStartup.Step) throws(StorageError) {
    switch step {
    case .send(let packet):
      guard let id = requests.nextID else { throw .wouldBlock }
      do throws(ChannelError) {
        unsafe try channel.send(packet.span.bytes, transactionID: id, completionRequested: true)
      } catch {
        throw .channel(error)
      }
      let request = StorageRequest<External>(tag: 0, byteCount: 0, kind: .negotiation, buffer: nil)
      requests.insert(request, deadline: MonotonicClock.now() &+ timeout)
    case .command(let command, let byteCount):
      var buffer = answer.take()
      try submit(command, byteCount: byteCount, buffer: &buffer, tag: 0, kind: .identification)
    case .agreed(let agreed):
      version = agreed.capabilities.version
      agreement = agreed
      guard identifies else {
        phase = .ready
        break
      }
      let limit = Self.maximumTransfer(agreed.capabilities)
      try perform(startup.inquire(lun, version, maximumTransfer: limit))
    case .ready(let information):
      disk = information
      agreement?.disk = information
      geometry = information.geometry
      // Its memory is free for others.
      _ = answer.take()
      phase = .ready
    }
    channel.flush()
  }

  /// Bytes that one request may move: the host's limit, and that of one packet.
  static func maximumTransfer(_ capabilities: StorageCapabilities) -> Int {
    min(Int(capabilities.maximumTransferBytes), Channel<Ring, External>.maximumDMAByteCount)
  }

  @usableFromInline
  mutating func fail(_ error: StorageError) {
    guard phase != .failed else { return }
    phase = .failed
    failure = error
  }
}

/// What a controller's channel sends beside reads and writes.
extension StorageQueue {
  /// Sends a command to any unit.
  mutating func submit(
    block: SCSICommandBlock, lun: UInt8, byteCount: Int, buffer: inout DMABuffer<External>?,
    tag: UInt64
  ) throws(StorageError) {
    guard phase == .ready else { throw .notReady }
    guard requests.count < depth, let id = requests.nextID else { throw .wouldBlock }
    var packet = StorageNegotiation.Packet(repeating: 0)
    StoragePacketHeader(.executeSRB, flags: .requestCompletion).write(into: &packet)
    // The host's own time is shorter than ours, so that its answer is seen.
    SCSIRequest(
      block: block, lun: lun, transferLength: UInt32(truncatingIfNeeded: byteCount),
      timeout: 20, version: version
    ).write(into: &packet, at: StoragePacketHeader.byteCount)
    try send(
      packet, id, byteCount: byteCount, buffer: &buffer, tag: tag, kind: .command,
      timeout: timeout)
  }

  /// Sends a packet that is no request: it has no data, and only its status counts.
  mutating func submit(
    control packet: StorageNegotiation.Packet, tag: UInt64, timeout: UInt64
  ) throws(StorageError) {
    guard phase == .ready else { throw .notReady }
    guard let id = requests.nextID else { throw .wouldBlock }
    var none: DMABuffer<External>?
    try send(packet, id, byteCount: 0, buffer: &none, tag: tag, kind: .control, timeout: timeout)
  }

  @usableFromInline
  mutating func controlOutcome(_ packet: Packet) -> Result<Int, StorageError> {
    do throws(WireError) {
      let header = try StoragePacketHeader(parsing: channel.payload(of: packet))
      guard header.operation == .completeIO else {
        channel.counters.malformed &+= 1
        return .failure(.unexpectedOperation(header.operation))
      }
      guard header.status == .success else { return .failure(.declined(header.status)) }
      return .success(0)
    } catch {
      channel.counters.malformed &+= 1
      return .failure(.malformed(error))
    }
  }

  /// Ends the channel: the host does nothing any more.
  mutating func giveUp() {
    fail(.unresponsive)
    channel.end(.hostGone)
  }
}
