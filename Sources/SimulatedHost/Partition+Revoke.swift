// SPDX-License-Identifier: Apache-2.0

import Logging
import VMBus

// Subchannels, and how channels go.

extension Partition {
  /// A device has agreed with its guest on subchannels: the same device with an index, each with a
  /// relid of its own, for this guest only.
  func offerSubchannels(of primary: ChannelID, count: UInt16) {
    guard let index = deviceOf[primary], let device = host.devices[index], count > 0,
      channels[primary] != nil, !revoking.contains(primary)
    else { return }
    let old = primaries.filter { $0.value == primary }.keys
    guard old.isEmpty else {
      // A guest that opens again at once asks while the subchannels of the last time still go.
      if revoking.isSuperset(of: old) { wantedSubchannels[primary] = count }
      return
    }
    for number in 1...count {
      var offer = monitored(device.vsp.offer)
      offer.subchannelIndex = number
      do throws(ControlError) {
        let (id, actions) = try server.offer(offer)
        deviceOf[id] = index
        primaries[id] = primary
        perform(actions)
      } catch {
        return logger.error("subchannel \(number) can't be offered: \(error)")
      }
    }
  }

  /// The offer with a monitor that no other channel has, where the host uses them.
  func monitored(_ offer: OfferChannel) -> OfferChannel {
    guard host.configuration.usesMonitors else { return offer }
    let taken = Set(server.offers.compactMap(\.monitor))
    let numbers = 0..<UInt8(MonitorPage.monitorCount)
    guard
      let free = numbers.lazy.compactMap({ MonitorID($0) }).first(where: { !taken.contains($0) })
    else { return offer }
    var offer = offer
    offer.monitorID = free.rawValue
    offer.monitorAllocated = 1
    return offer
  }

  /// The guest has closed a primary channel.
  func revokeSubchannels(of primary: ChannelID) {
    wantedSubchannels[primary] = nil
    for (id, other) in primaries where other == primary { beginRevoke(id) }
    finishRevokes()
  }

  /// The device goes. An open channel ends first: the guest is told when its memory is not
  /// touched any more.
  func revoke(device index: Int) {
    for (id, device) in deviceOf where device == index { beginRevoke(id) }
    finishRevokes()
  }

  private func beginRevoke(_ id: ChannelID) {
    guard revoking.insert(id).inserted else { return }
    channels[id]?.state.close()
  }

  /// Tells the guest of all that has let go: subchannels first, since a primary channel takes
  /// its subchannels along.
  func finishRevokes() {
    let over = revoking.filter { channels[$0] == nil }.sorted()
    for id in over where primaries[id] != nil { finishRevoke(id) }
    for id in over where revoking.contains(id) {
      guard !primaries.contains(where: { $0.value == id && revoking.contains($0.key) }) else {
        continue
      }
      finishRevoke(id)
    }
  }

  private func finishRevoke(_ id: ChannelID) {
    revoking.remove(id)
    let primary = primaries.removeValue(forKey: id)
    // The server answers for what is on its way.
    leaving = leaving.filter { $0.value.channel != id }
    do throws(ControlError) { perform(try server.revoke(id)) } catch {
      logger.debug("device can't be revoked: \(error)")
    }
    wantedSubchannels[id] = nil
    guard let primary, !primaries.values.contains(primary),
      let count = wantedSubchannels.removeValue(forKey: primary)
    else { return }
    offerSubchannels(of: primary, count: count)
  }
}
