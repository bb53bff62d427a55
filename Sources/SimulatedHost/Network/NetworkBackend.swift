// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import Platform
public import SystemPackage

/// What a network device of the host is joined to: a switch, a TAP device, a generator of packets.
///
/// One value serves all guests and all their channels.
public protocol NetworkBackend: Sendable {
  /// A guest has opened the device's primary channel.
  ///
  /// - Parameter address: what the guest is to have; unique on this host.
  /// - Returns: what the guest's channels and everybody who sends to it share.
  func connect(address: MACAddress) throws(Errno) -> NetworkAdapter
  /// The guest's primary channel is closed. Subchannels may still be there for a moment.
  func disconnect(_ adapter: NetworkAdapter)
  /// None of its channels is left.
  func recycle(_ adapter: NetworkAdapter)
  /// Whether guests find the cable plugged in. Called when it changes, on any thread.
  func linkChanged(_ adapter: NetworkAdapter, isUp: Bool)
  /// Which offloads frames to this guest may have.
  func offloadsChanged(_ adapter: NetworkAdapter, coalescesIPv4: Bool, coalescesIPv6: Bool)

  /// A guest has opened a channel: makes this backend's port for it, and calls `channel.serve`.
  ///
  /// - Parameter worker: who polls the port. Whatever wakes the port is watched by that worker.
  func open(_ channel: consuming sending NetworkChannel, on worker: Worker) throws(Errno)
}

extension NetworkBackend {
  public func disconnect(_ adapter: NetworkAdapter) {}
  public func linkChanged(_ adapter: NetworkAdapter, isUp: Bool) {}
  public func offloadsChanged(
    _ adapter: NetworkAdapter, coalescesIPv4: Bool, coalescesIPv6: Bool
  ) {}
}

/// One channel's end of a backend. It belongs to the channel's worker; nothing is allocated per frame.
public protocol NetworkPort: ~Copyable, SendableMetatype {
  /// Takes a frame of the guest. The bytes may be the guest's own memory, which it may write at any
  /// time: whatever is decided by them is decided by a private copy.
  mutating func send(_ frame: RawSpan, _ info: FrameInfo)
  /// The guest has sent what it had for now.
  mutating func flush()
  /// Whether the guest's next frames are to stay in its ring for now. Asked before each packet; a port
  /// that is waited for is asked again and again, so it must not say so for long.
  mutating func mustWait() -> Bool

  /// The next frame for the guest, which stays until `release`.
  mutating func next() -> FrameInfo?
  /// Its bytes, in private memory.
  @_lifetime(&self)
  mutating func frame(_ info: FrameInfo) -> MutableRawSpan
  mutating func release()
  /// The guest takes nothing at this time: what is there is dropped. Returns how many frames that were.
  mutating func discard() -> Int

  /// Asks to be woken when there is a frame. Returns true when there is one.
  mutating func arm() -> Bool
  mutating func disarm()
  /// The guest takes no frame for now: nothing that comes is to wake the worker, until `arm`.
  mutating func park()
}

extension NetworkPort where Self: ~Copyable {
  public mutating func flush() {}
  public mutating func mustWait() -> Bool { false }
  public mutating func discard() -> Int {
    for count in 0..<64 {
      guard next() != nil else { return count }
      release()
    }
    return 64
  }
  public mutating func disarm() {}
  public mutating func park() {}
}
