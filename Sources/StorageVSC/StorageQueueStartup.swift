// SPDX-License-Identifier: Apache-2.0

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
        let result = Self.outcome(channel.payload(of: packet), asked: byteCount)
        // A private copy: the host may see the buffer, and change it while it is looked at.
        var copy = InlineArray<256, UInt8>(repeating: 0)
        let moved = min((try? result.get()) ?? 0, copy.count)
        if let buffer = answer.take() {
          var target = copy.mutableSpan
          var bytes = unsafe target.mutableBytes
          var part = bytes._mutatingExtracting(first: moved)
          buffer.copyOut(into: &part)
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
    case .ready(let information):
      disk = information
      geometry = information.geometry
      // One packet describes 2 MiB at most.
      geometry.maximumTransferByteCount = min(
        geometry.maximumTransferByteCount, Channel<Ring, External>.maximumDMAByteCount)
      disk?.geometry = geometry
      version = information.version
      // Its memory is free for others.
      _ = answer.take()
      phase = .ready
    }
    channel.flush()
  }

  @usableFromInline
  mutating func fail(_ error: StorageError) {
    guard phase != .failed else { return }
    phase = .failed
    failure = error
  }
}
