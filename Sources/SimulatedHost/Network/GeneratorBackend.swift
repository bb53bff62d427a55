// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import PacketIO
public import Platform
public import SystemPackage

/// Makes frames as fast as guests take them, and drops what they send; for benchmarks.
public final class GeneratorBackend: NetworkBackend {
  private let pool = AdapterPool(queueCapacity: 1)
  private let byteCount: Int

  /// - Parameter byteCount: of each frame, Ethernet header included: 60 to 65549; 0 makes none, so that
  ///   it is a sink.
  public init(byteCount: Int) {
    self.byteCount = byteCount == 0 ? 0 : min(max(byteCount, 60), FrameInfo.maximumByteCount)
  }

  /// Drops what guests send, and sends nothing.
  public static var sink: GeneratorBackend { GeneratorBackend(byteCount: 0) }

  public func connect(address: MACAddress) throws(Errno) -> NetworkAdapter { pool.take(address) }
  public func recycle(_ adapter: NetworkAdapter) { pool.put(adapter) }

  public func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {
    let (adapter, queue) = (channel.adapter, channel.queue)
    let opening = try adapter.openQueue(queue).opening
    channel.serve(
      GeneratorPort(adapter, self, queue: queue, opening: opening, byteCount: byteCount),
      on: worker)
  }
}

/// One channel's generator: UDP over IPv4, of a flow that belongs to this channel.
@safe
public struct GeneratorPort: NetworkPort, ~Copyable {
  private let adapter: NetworkAdapter
  private let state: AdapterState
  private let backend: GeneratorBackend
  private let queue: Int
  private let opening: Int
  private let template: UnsafeMutableRawBufferPointer
  private var info: FrameInfo
  private var isReady = false
  private var sequence: UInt64 = 0

  init(
    _ adapter: NetworkAdapter, _ backend: GeneratorBackend, queue: Int, opening: Int,
    byteCount: Int
  ) {
    self.adapter = adapter
    state = adapter.state
    self.backend = backend
    self.queue = queue
    self.opening = opening
    info = FrameInfo(byteCount: byteCount)
    unsafe template = .allocate(byteCount: max(byteCount, 64), alignment: 64)
    unsafe template.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit {
    adapter.closeQueue(queue, opening: opening)
    unsafe template.deallocate()
  }

  public mutating func send(_ frame: RawSpan, _ info: FrameInfo) {}

  public mutating func next() -> FrameInfo? {
    guard info.byteCount > 0, !state.filter.isEmpty, state.isLinkUp else { return nil }
    if !isReady { prepare() }
    return info
  }

  @_lifetime(&self)
  public mutating func frame(_ info: FrameInfo) -> MutableRawSpan {
    // Safe: the template is this value's, and has at least so many bytes.
    unsafe _overrideLifetime(
      MutableRawSpan(
        _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: template[0..<self.info.byteCount])),
      mutating: &self)
  }

  public mutating func release() {
    sequence &+= 1
    // Behind the UDP header, so that no two are the same.
    unsafe template.storeBytes(of: sequence.littleEndian, toByteOffset: 42, as: UInt64.self)
  }

  /// It never runs dry.
  public mutating func discard() -> Int { 0 }
  public mutating func arm() -> Bool { next() != nil }

  /// Writes the headers. The UDP checksum is 0: there is none.
  private mutating func prepare() {
    isReady = true
    let byteCount = info.byteCount
    let address = state.address.bytes
    for index in 0..<6 { unsafe template[index] = address[index] }
    let source: [UInt8] = [0x02, 0x15, 0x5D, 0xFF, 0xFF, UInt8(truncatingIfNeeded: queue)]
    unsafe copy(source, to: 6)
    let total = byteCount - 14
    let header: [UInt8] = [
      0x08, 0x00, 0x45, 0, UInt8(total >> 8 & 0xFF), UInt8(total & 0xFF), 0, 0, 0x40, 0, 64, 17,
      0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]
    unsafe copy(header, to: 12)
    // The discard port. Any source port will do that belongs to this channel.
    let udp = total - 20
    let ports: [UInt8] = [0, 0, 0, 9, UInt8(udp >> 8 & 0xFF), UInt8(udp & 0xFF), 0, 0]
    unsafe copy(ports, to: 34)
    for port in 1024..<UInt16(5120) {
      unsafe template[34] = UInt8(port >> 8)
      unsafe template[35] = UInt8(port & 0xFF)
      info.hash = []
      let found = unsafe state.queue(
        for: RawSpan(_unsafeBytes: UnsafeRawBufferPointer(template)), &info)
      if found == queue { break }
    }
    var span = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: template[0..<byteCount]))
    FrameHeaders(span.bytes)?.fillNetworkChecksum(in: &span)
    info.offload = FrameOffload(checksum: .verified)
  }

  @unsafe
  private func copy(_ bytes: [UInt8], to offset: Int) {
    for (index, byte) in bytes.enumerated() { unsafe template[offset + index] = byte }
  }
}
