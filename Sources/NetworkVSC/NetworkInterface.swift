// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import Platform
import VSC

/// A network device that was started, for any thread.
public final class NetworkInterface: Sendable {
  private let device: Device
  private let life: NetworkLife

  init(
    _ device: Device, _ life: NetworkLife, events: @escaping @Sendable (NetworkEvent) -> Void
  ) {
    self.device = device
    self.life = life
  }

  /// What is known of the device now.
  public var information: NetworkInformation { life.information }

  /// What each queue did so far, by number; without those that are over.
  public func statistics() async -> [NetworkQueueStatistics] {
    var result: [NetworkQueueStatistics] = []
    for mailbox in life.mailboxes {
      let promise = Promise<NetworkQueueStatistics?>()
      mailbox.put(.statistics(promise))
      if let statistics = await promise.value() { result.append(statistics) }
    }
    return result
  }

  /// Which frames the host is to deliver from now on.
  public func setFilter(_ filter: PacketFilter) async throws(NetworkError) {
    try await set(.currentPacketFilter, filter.rawValue.wireBytes)
    life.update { $0.filter = filter }
  }

  /// Sets an object of the device.
  public func set(_ oid: OID, _ bytes: [UInt8]) async throws(NetworkError) {
    try await ask { .set(oid, bytes, $0) }
  }

  /// Tells the host where packets are to go from now on. This driver goes on with the synthetic path; who
  /// drives the virtual function calls this when that is ready, and before it is not any more.
  public func switchDataPath(_ path: NVSPDataPath) async throws(NetworkError) {
    try await ask { .switchDataPath(path, $0) }
  }

  private func ask(
    _ request: (Promise<NetworkError?>) -> NetworkMailbox.Request
  ) async throws(NetworkError) {
    guard let primary = life.mailboxes.first else { throw .notReady }
    let promise = Promise<NetworkError?>()
    primary.put(request(promise))
    if let error = await promise.value() { throw error }
  }

  // MARK: - The end

  /// Why the device can be used no more, or nil while it can.
  public var ended: NetworkError? { life.endReason }

  /// Suspends until the device can be used no more, or the task is cancelled.
  public func waitUntilEnded() async -> NetworkError { await life.waitUntilEnded() }

  /// `body` is called once, by any thread, when all is over.
  func whenEnded(_ body: @escaping @Sendable (NetworkError) -> Void) { life.whenEnded(body) }

  /// Ends all queues, whose users see it in `failure` and drop them; returns when the host is known to be done
  /// with all memory. Users that keep their queues keep this waiting.
  public func close() async {
    life.end(.channel(.ended(.closed)))
    await device.close()
  }
}
