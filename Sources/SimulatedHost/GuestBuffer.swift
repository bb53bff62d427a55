// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
public import VMBus

/// Why a device can't have the memory behind a GPADL that a guest has named.
public enum GuestBufferError: Error, Equatable, Sendable {
  /// The guest has described no such GPADL for this channel, or has asked for it back.
  case unknown(GPADLID)
  /// More than one range, or one that does not begin and end with a page.
  case shape(GPADLID)
  case memory(GuestMemoryError)
}

extension GuestBufferError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unknown(let id): "GPADL \(id): the guest has described none for this channel"
    case .shape(let id): "GPADL \(id): not one range of whole pages"
    case .memory(let error): "\(error)"
    }
  }
}

/// A GPADL of a guest, mapped behind each other for the device that it was named to.
///
/// The guest gets its teardown answered when the last of these is gone: until then the device may
/// touch the memory.
@safe
public final class GuestBuffer: Sendable {
  private let mapping: GuestMapping
  private let entry: GPADLEntry

  fileprivate init(_ mapping: consuming GuestMapping, _ entry: GPADLEntry) {
    self.mapping = mapping
    self.entry = entry
  }

  deinit { entry.release() }

  public var byteCount: Int { mapping.byteCount }

  /// The memory, as long as this object lives. The guest writes there when it likes.
  @unsafe
  public var start: UnsafeMutableRawPointer { unsafe mapping.start }
}

/// One GPADL that a guest has described, and how many devices use it.
final class GPADLEntry: Sendable {
  let channel: ChannelID
  let ranges: [GPADLRange]
  private let state = Lock(State())

  private struct State {
    var uses = 0
    var isTornDown = false
    var whenFree: (@Sendable () -> Void)?
  }

  init(_ channel: ChannelID, _ ranges: [GPADLRange]) {
    self.channel = channel
    self.ranges = ranges
  }

  /// A page of it among these, which have no boundary bit.
  func page(in pages: Range<GPN>, boundary: GPN) -> GPN? {
    for range in ranges {
      if let page = range.gpns.first(where: { pages.contains($0 & ~boundary) }) { return page }
    }
    return nil
  }

  /// Begins a use; false when the guest has asked for its memory back.
  fileprivate func use() -> Bool {
    state.withLock { state in
      if state.isTornDown { return false }
      state.uses += 1
      return true
    }
  }

  fileprivate func release() {
    let whenFree = state.withLock { state in
      state.uses -= 1
      return state.uses == 0 ? state.whenFree : nil
    }
    whenFree?()
  }

  /// No use begins any more. Returns true when there is none; else `whenFree` is called after the
  /// last one, on any thread.
  func tearDown(whenFree: @escaping @Sendable () -> Void) -> Bool {
    state.withLock { state in
      state.isTornDown = true
      state.whenFree = whenFree
      return state.uses == 0
    }
  }
}

/// The GPADLs of one guest by their ids, for devices that are told an id in a packet.
final class GPADLTable: Sendable {
  private let entries = Lock<[GPADLID: GPADLEntry]>([:])

  func insert(_ id: GPADLID, _ entry: GPADLEntry) { entries.withLock { $0[id] = entry } }

  func remove(_ id: GPADLID) -> GPADLEntry? { entries.withLock { $0.removeValue(forKey: id) } }

  func removeAll(of channel: ChannelID) {
    entries.withLock { entries in entries = entries.filter { $0.value.channel != channel } }
  }

  /// One that has any of these pages.
  func first(with pages: Range<GPN>, boundary: GPN) -> (id: GPADLID, page: GPN)? {
    entries.withLock { entries in
      for (id, entry) in entries {
        if let page = entry.page(in: pages, boundary: boundary) { return (id, page) }
      }
      return nil
    }
  }

  func removeAll() { entries.withLock { $0.removeAll() } }

  /// Maps a GPADL for the device of a channel.
  func buffer(
    _ id: GPADLID, of channel: ChannelID, in memory: GuestMemory, _ view: GuestMemoryView
  ) throws(GuestBufferError) -> GuestBuffer {
    guard let entry = entries.withLock({ $0[id] }), entry.channel == channel, entry.use() else {
      throw .unknown(id)
    }
    do throws(GuestBufferError) {
      guard entry.ranges.count == 1, let range = entry.ranges.first, range.byteOffset == 0,
        range.byteCount % 4096 == 0
      else { throw .shape(id) }
      do throws(GuestMemoryError) {
        return GuestBuffer(try memory.map(range.gpns, in: view), entry)
      } catch {
        throw .memory(error)
      }
    } catch {
      entry.release()
      throw error
    }
  }
}
