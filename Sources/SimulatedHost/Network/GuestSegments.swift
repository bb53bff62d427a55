// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VMBus

/// The memory of a guest that one packet names: a section of its send buffer, ranges of its pages, or
/// the one and then the others, as one stream of bytes.
///
/// The guest may write there at any time: headers are copied before anybody looks at them.
@safe
struct GuestSegments: ~Copyable {
  @safe
  private struct Segment {
    let start: UnsafeMutableRawPointer
    let byteCount: Int
    /// Which of the packet's ranges it is part of.
    let range: Int
  }

  /// More pieces of memory than any frame of 64 KiB lies in, several times over.
  static let capacity = 256
  private let segments: UnsafeMutablePointer<Segment>
  private var count = 0
  private var rangeCount = 0
  private(set) var byteCount = 0
  // Where the last access has ended: those that follow begin there or behind it.
  private var index = 0
  /// Bytes of the stream before that segment.
  private var base = 0

  init() { unsafe segments = .allocate(capacity: Self.capacity) }

  deinit { unsafe segments.deallocate() }

  mutating func removeAll() {
    (count, rangeCount, byteCount, index, base) = (0, 0, 0, 0, 0)
  }

  /// A section of the send buffer.
  @unsafe
  mutating func append(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
    guard byteCount > 0, count < Self.capacity else { return }
    unsafe (segments + count).initialize(
      to: Segment(start: start, byteCount: byteCount, range: rangeCount))
    count &+= 1
    rangeCount &+= 1
    self.byteCount &+= byteCount
  }

  /// All ranges of a GPA-direct packet.
  mutating func append(_ ranges: consuming GuestRanges) throws(NetVSPError) {
    while ranges.count > 0 {
      let left = ranges.count
      var data: GuestRangeData
      do throws(WireError) { data = try ranges.next() } catch { throw .malformed(error) }
      var offset = 0
      while offset < data.byteCount {
        guard count < Self.capacity else { throw .badRanges(count: left) }
        do throws(ExternalDataError) {
          var span = try data.segment(at: offset, maximum: data.byteCount &- offset)
          let length = span.byteCount
          // Safe: the table of the guest's memory, which this lies in, outlives the channel.
          unsafe span.withUnsafeMutableBytes { bytes in
            guard let start = bytes.baseAddress else { return }
            unsafe (segments + count).initialize(
              to: Segment(start: start, byteCount: length, range: rangeCount))
          }
          count &+= 1
          offset &+= length
        } catch .notVisible(let page) {
          throw .memory(page: page)
        } catch {
          throw .badRanges(count: left)
        }
      }
      rangeCount &+= 1
      byteCount &+= data.byteCount
    }
  }

  /// Goes to the segment of an offset below `byteCount`.
  private mutating func seek(_ offset: Int) {
    if offset < base { (index, base) = (0, 0) }
    while index < count &- 1 {
      let length = unsafe segments[index].byteCount
      guard offset >= base &+ length else { return }
      base &+= length
      index &+= 1
    }
  }

  /// Copies bytes out.
  ///
  /// - Parameter target: has room for `count` bytes.
  /// - Returns: false where the stream has fewer bytes, or, if so wished, where they lie in more than
  ///   one range.
  @unsafe
  mutating func copy(
    _ offset: Int, _ count: Int, to target: UnsafeMutableRawPointer, fromOneRange: Bool = false
  ) -> Bool {
    guard offset >= 0, count >= 0, count <= byteCount &- offset else { return false }
    if count == 0 { return true }
    seek(offset)
    var done = 0
    let first = unsafe segments[index].range
    while done < count {
      seek(offset &+ done)
      let segment = unsafe segments[index]
      if fromOneRange, segment.range != first { return false }
      let within = offset &+ done &- base
      let part = min(segment.byteCount &- within, count &- done)
      guard part > 0 else { return false }
      unsafe (target + done).copyMemory(from: segment.start + within, byteCount: part)
      done &+= part
    }
    return true
  }

  /// The bytes where they are, if they lie in one piece.
  @unsafe
  mutating func contiguous(_ offset: Int, _ count: Int) -> UnsafeRawPointer? {
    guard offset >= 0, count > 0, count <= byteCount &- offset else { return nil }
    seek(offset)
    let segment = unsafe segments[index]
    let within = offset &- base
    guard count <= segment.byteCount &- within else { return nil }
    return unsafe UnsafeRawPointer(segment.start + within)
  }
}

/// Private memory of a server, to put frames and headers together in.
@safe
struct FrameScratch: ~Copyable {
  let start: UnsafeMutableRawPointer
  let byteCount: Int

  init(byteCount: Int) {
    self.byteCount = byteCount
    unsafe start = .allocate(byteCount: byteCount, alignment: 64)
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  }

  deinit { unsafe start.deallocate() }
}
