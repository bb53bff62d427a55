// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VSC

/// Where a frame lies in a frame buffer.
@usableFromInline
enum FrameLayout {
  /// Bytes before the frame, for the RNDIS message that it is in: so header and frame are one range, and
  /// the header does not cross a page, which hosts refuse.
  @inlinable static var headroom: Int { 256 }
}

/// Memory for a frame that is to be sent, of any length that the device takes. It belongs to the worker of
/// the queue that it was taken from; dropping it gives it back.
public struct FrameBuffer<Memory: Visibility>: ~Copyable {
  @usableFromInline var memory: DMABuffer<Memory>
  @usableFromInline var used = 0

  @inlinable
  init(_ memory: consuming DMABuffer<Memory>) { self.memory = memory }

  /// Bytes of the frame, `capacity` at most.
  @inlinable public var byteCount: Int {
    get { used }
    set { used = min(max(newValue, 0), capacity) }
  }

  /// Bytes that a frame may have here.
  @inlinable public var capacity: Int { memory.byteCount &- FrameLayout.headroom }

  /// The frame.
  @inlinable
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      memory.bytes.extracting(
        FrameLayout.headroom..<(FrameLayout.headroom &+ used))
    }
  }

  /// Makes the frame a copy of `source`, as much of it as fits.
  @inlinable
  mutating func copyIn(_ source: RawSpan) {
    byteCount = source.byteCount
    memory.copyIn(source, at: FrameLayout.headroom)
  }

  /// Makes the frame `count` bytes long, or as long as possible, and has `body` fill it.
  @inlinable
  public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
    _ count: Int, _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    byteCount = count
    return try memory.withMutableBytes(FrameLayout.headroom &+ byteCount) {
      (span: inout MutableRawSpan) throws(Failure) in
      var frame = span._mutatingExtracting(droppingFirst: FrameLayout.headroom)
      return try body(&frame)
    }
  }
}

/// Frames that are to be sent, from the first on.
@safe
public struct SendBurst<Memory: Visibility>: ~Copyable {
  @usableFromInline let frames: UnsafeMutablePointer<FrameBuffer<Memory>>
  @usableFromInline let infos: UnsafeMutablePointer<PerPacketInfo>
  @usableFromInline var start = 0
  @usableFromInline var used = 0
  public let capacity: Int

  public init(capacity: Int = 32) {
    self.capacity = max(capacity, 1)
    unsafe frames = .allocate(capacity: self.capacity)
    unsafe infos = .allocate(capacity: self.capacity)
    unsafe infos.initialize(repeating: PerPacketInfo(), count: self.capacity)
  }

  @inlinable
  deinit {
    for index in 0..<used { unsafe (frames + place(index)).deinitialize(count: 1) }
    unsafe frames.deallocate()
    unsafe infos.deallocate()
  }

  @inlinable public var count: Int { used }
  @inlinable public var isEmpty: Bool { used == 0 }
  @inlinable public var isFull: Bool { used == capacity }

  @inlinable
  func place(_ index: Int) -> Int {
    let place = start &+ index
    return place >= capacity ? place &- capacity : place
  }

  /// Adds a frame, unless the burst is full: `isFull` tells before, and then the frame is dropped.
  @inlinable
  public mutating func append(
    _ frame: consuming FrameBuffer<Memory>, _ info: PerPacketInfo = PerPacketInfo()
  ) {
    guard used < capacity else { return }
    unsafe (frames + place(used)).initialize(to: frame)
    unsafe infos[place(used)] = info
    used &+= 1
  }

  @inlinable
  mutating func takeFirst() -> FrameBuffer<Memory>? {
    guard used > 0 else { return nil }
    return unsafe (frames + start).move()
  }

  @inlinable var firstInfo: PerPacketInfo { unsafe infos[start] }

  /// After `takeFirst`: it was not sent.
  @inlinable
  mutating func putBack(_ frame: consuming FrameBuffer<Memory>) {
    unsafe (frames + start).initialize(to: frame)
  }

  /// After `takeFirst`: it was sent.
  @inlinable
  mutating func dropFirst() {
    start = place(1)
    used &-= 1
  }
}
