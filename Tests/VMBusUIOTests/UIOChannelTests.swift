// SPDX-License-Identifier: Apache-2.0

import Platform
import SystemPackage
import TestSupport
import Testing
import VMBus

@testable import VMBusUIO
@testable import VSC

/// Channels over files that behave as those of a UIO device: what is mapped can be taken away, and
/// reads fail with EIO when the device has gone (as they do at the start of `/proc/self/mem`).
/// One after another: they look at descriptors by number.
@Suite(.serialized) struct UIOChannelTests {
  static let ringByteCount = 2 * 8192
  private let life = DeviceLife()
  private let worker: Worker
  private let ring = makeRingFile(byteCount: Self.ringByteCount)

  init() throws { worker = try Worker(.init(name: "uio-test", spinRounds: 0)) }

  private func open() async throws -> UIOChannelState {
    let (life, worker, ring) = (life, worker, ring)
    return try await life.opening(1) { () async throws(TransportError) -> UIOChannelState in
      do throws(Errno) {
        let parts = UIOChannelState.Parts(
          ring: try MappedMemory(ring, byteCount: Self.ringByteCount), monitorPage: nil,
          file: try DeviceFile(path: "/proc/self/mem"))
        return try Self.makeState(parts, life, worker)
      } catch {
        throw TransportError.system("test", code: error.rawValue, text: "\(error)")
      }
    }
  }

  private static func makeState(
    _ parts: consuming sending UIOChannelState.Parts, _ life: DeviceLife, _ worker: Worker
  ) throws(Errno) -> UIOChannelState {
    do throws(TransportError) {
      return try UIOChannelState(1, .hostVisible, life, worker, parts, monitor: nil)
    } catch {
      throw .invalidArgument
    }
  }

  @Test func aRingThatIsTakenAwayEndsTheChannelAndNotTheProcess() async throws {
    let state = try await open()
    var channel = try Channel<HostVisible, HostVisible>(state.raw, ChannelParameters())
    let before = try channel.receive()
    let ended = channel.ended
    #expect(before == nil && ended == nil)
    cutOff(ring)
    let payload: [UInt8] = [1, 2, 3, 4]
    // The data area is touched here, and is not there any more.
    unsafe try? channel.send(payload.span.bytes)
    channel.flush()
    let error = Self.errorOfReceive(&channel)
    let corrupt = channel.counters.corrupt
    #expect(error == .ended(.rescinded) && corrupt == 0)
    _ = consume channel
    let memory = await life.close()
    #expect(memory.isEmpty)
    worker.stop()
    closeFile(ring)
  }

  private static func errorOfReceive(
    _ channel: inout Channel<HostVisible, HostVisible>
  ) -> ChannelError? {
    do throws(ChannelError) {
      _ = try channel.receive()
      return nil
    } catch {
      return error
    }
  }

  @Test func aDeviceThatIsGoneEndsTheChannelAndTheDevice() async throws {
    let state = try await open()
    let raw = state.raw
    let (start, byteCount) = unsafe (raw.incoming.data, raw.incoming.dataByteCount)
    unsafe start.storeBytes(of: 1, as: UInt64.self)
    worker.post { state.takeInterrupts() }
    let end = await life.ended()
    #expect(end == .rescinded && state.ended == .rescinded)
    // The kernel's memory is out of reach: writes go nowhere.
    #expect(unsafe start.load(as: UInt64.self) == 0)
    unsafe (start + byteCount - 8).storeBytes(of: 7, as: UInt64.self)
    #expect(fileHasOnlyZeros(ring, from: Self.ringByteCount - 8))
    state.release()
    _ = await life.close()
    worker.stop()
    closeFile(ring)
  }

  @Test func closingGivesBackTheDescriptorAndTheMapping() async throws {
    let state = try await open()
    let raw = state.raw
    let address = unsafe UInt(bitPattern: raw.outgoing.controlPage)
    #expect(isMapped(address, from: ring))
    #expect(state.descriptor >= DeviceFile.lowestDescriptor)
    #expect(pathOfFile(state.descriptor).hasSuffix("/mem"))
    state.release()
    _ = await life.close()
    #expect(!isMapped(address, from: ring))
    #expect(!pathOfFile(state.descriptor).hasSuffix("/mem"))
    worker.stop()
    closeFile(ring)
  }
}
