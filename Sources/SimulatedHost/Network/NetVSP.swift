// SPDX-License-Identifier: Apache-2.0

import Logging
public import NetworkProtocol
public import Platform
import Synchronization
import SystemPackage
public import VMBus

/// A network device that guests can be offered. Each guest gets an interface of its own, joined to the
/// device's backend.
public final class NetVSP: VSP {
  public let offer: OfferChannel
  public let address: MACAddress
  public let configuration: AdapterConfiguration
  private let backend: any NetworkBackend
  /// Where the cable ends of a guest that the backend has no place for: with its link down, nothing comes
  /// back.
  private let nowhere = LoopbackBackend()
  private let logger: Logger
  private let state = Lock(State())

  private struct State {
    var guests: [Int: NetworkGuest] = [:]
    var isLinkUp = true
    var virtualFunction: UInt32?
    var flips: BitFlips?
    var isExhausted = false
  }

  /// - Parameters:
  ///   - backend: what it is joined to; several devices may have one switch.
  ///   - instance: the device's GUID, which guests see and keep.
  ///   - address: the first guest's; others get the ones behind it.
  ///   - flags: the confidential flags, which only guests on a confidential connection see.
  public init(
    _ backend: any NetworkBackend, instance: GUID, address: MACAddress,
    configuration: AdapterConfiguration = AdapterConfiguration(), flags: OfferFlags = [],
    logger: Logger = Logger(label: "network")
  ) {
    self.backend = backend
    self.address = address
    self.configuration = configuration
    self.logger = logger
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.network.guid
    offer.instanceID = instance
    offer.flags = flags.union(.enumerateDeviceInterface)
    self.offer = offer
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    let (number, isPrimary) = (channel.guest, channel.subchannelIndex == 0)
    do throws(Errno) {
      let guest = isPrimary ? begin(number) : try existing(number)
      try guest.backend.open(NetworkChannel(channel, guest), on: worker)
      if isPrimary { tellState(to: guest) }
    } catch {
      // The channel stays as it is until the guest closes it.
      logger.error("guest \(number) has no network: \(error)")
    }
  }

  /// A primary channel is a new beginning.
  private func begin(_ number: Int) -> NetworkGuest {
    let old = state.withLock { $0.guests.removeValue(forKey: number) }
    // It may not have noticed yet that it is over, and a TAP device has one cable.
    old?.disconnect()
    let taken = Set(state.withLock { state in state.guests.values.map(\.address) })
    let known = old?.address ?? address
    let address = taken.contains(known) ? free(taken) : known
    let (adapter, backend, isPlugged) = connect(number, address)
    let guest = NetworkGuest(
      adapter, backend, address: address, configuration, isPlugged: isPlugged
    ) { [weak self] guest in
      self?.state.withLock { state in
        if state.guests[number] === guest { state.guests[number] = nil }
      }
    }
    state.withLock { $0.guests[number] = guest }
    return guest
  }

  /// A driver that is never answered may wait for ever: without a network, a guest has a device whose link
  /// is down.
  private func connect(
    _ number: Int, _ address: MACAddress
  ) -> (adapter: NetworkAdapter, backend: any NetworkBackend, isPlugged: Bool) {
    do throws(Errno) { return (try backend.connect(address: address), backend, true) } catch {
      logger.warning("guest \(number) has no network, its link stays down: \(error)")
      return (nowhere.connect(address: address), nowhere, false)
    }
  }

  /// The device's address, or the first one behind it that no guest has.
  private func free(_ taken: Set<MACAddress>) -> MACAddress {
    var candidate = address
    for _ in 0..<256 where taken.contains(candidate) {
      candidate.rawValue =
        candidate.rawValue & 0xFF_FFFF_FFFF
        | ((candidate.rawValue >> 40 &+ 1) & 0xFF) << 40
    }
    return candidate
  }

  private func existing(_ number: Int) throws(Errno) -> NetworkGuest {
    guard let guest = state.withLock({ $0.guests[number] }) else { throw .ioError }
    return guest
  }

  /// What was set before this guest came.
  private func tellState(to guest: NetworkGuest) {
    let state = state.withLock { state in
      (state.isLinkUp, state.virtualFunction, state.flips, state.isExhausted)
    }
    if !state.0 || !guest.isPlugged { guest.perform(.setLink(false)) }
    if let serial = state.1 { guest.perform(.setVirtualFunction(serial)) }
    if let flips = state.2 { guest.perform(.flip(flips)) }
    if state.3 { guest.perform(.setExhausted(true)) }
  }

  // MARK: - At any time and from any thread

  /// Guests by their numbers.
  public var records: [Int: NetworkGuestRecord] {
    state.withLock { $0.guests }.mapValues(\.record)
  }

  private func tell(_ command: NetworkCommand, onAll: Bool = false) {
    for guest in state.withLock({ Array($0.guests.values) }) {
      guest.perform(command, onAll: onAll)
    }
  }

  /// Pulls the cable out, or plugs it in again.
  public func setLinkUp(_ isUp: Bool) {
    state.withLock { $0.isLinkUp = isUp }
    tell(.setLink(isUp))
  }

  /// Tells guests that they may be on another network: they are to ask for addresses anew.
  public func announceNetworkChange() { tell(.networkChanged) }

  /// Offers each guest a virtual function with this serial number, or takes it away.
  public func setVirtualFunction(_ serial: UInt32?) {
    state.withLock { $0.virtualFunction = serial }
    tell(.setVirtualFunction(serial))
  }

  /// While so, nothing is received: as if guests gave no buffer back.
  public func setExhausted(_ isExhausted: Bool) {
    state.withLock { $0.isExhausted = isExhausted }
    tell(.setExhausted(isExhausted), onAll: true)
  }

  /// Flips bits of what guests are sent from now on, on each channel; nil: not any more.
  public func setFlips(_ flips: BitFlips?) {
    state.withLock { $0.flips = flips }
    tell(.flip(flips), onAll: true)
  }
}
