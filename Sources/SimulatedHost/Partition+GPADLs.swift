// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import VMBus

// The memory that a guest describes for its channels, from the description to the teardown.

extension Partition {
  /// A GPADL is accepted when each of its pages may be seen.
  func checkGPADL(_ channel: ChannelID, _ gpadl: GPADLID) {
    guard let memory, let ranges = server.gpadlBeingCreated(gpadl, of: channel) else {
      return perform(server.gpadlCompleted(gpadl, .unsuccessful))
    }
    // A relayed channel is the host's: nothing that is encrypted can lie in its GPADLs.
    let relay = relay?.has(channel) == true ? relay : nil
    let views = relay == nil ? views(of: channel) : [.hostVisible]
    for range in ranges {
      for page in range.gpns where !views.contains(where: { memory.contains(page, in: $0) }) {
        memory.audit.refused(page)
        refuse("GPADL \(gpadl) of channel \(channel)", GuestMemoryError.notVisible(page: page))
        return perform(server.gpadlCompleted(gpadl, .unsuccessful))
      }
    }
    if memory.hidesPages { log(gpadl, of: channel, ranges, memory) }
    if let relay { return relay.create(gpadl, of: channel) }
    gpadls.insert(gpadl, GPADLEntry(channel, ranges))
    perform(server.gpadlCompleted(gpadl, .success))
  }

  /// Tells of which kind the pages are.
  private func log(
    _ gpadl: GPADLID, of channel: ChannelID, _ ranges: [GPADLRange], _ memory: GuestMemory
  ) {
    var (encrypted, shared) = (0, 0)
    for page in ranges.lazy.flatMap(\.gpns) {
      if memory.contains(page, in: .encrypted) { encrypted += 1 } else { shared += 1 }
    }
    logger.debug(
      "GPADL \(gpadl) of channel \(channel): \(encrypted) pages encrypted, \(shared) shared")
  }

  /// The memory that GPADLs of a channel may lie in: its ring's, and its external data's.
  private func views(of channel: ChannelID) -> [GuestMemoryView] {
    guard server.connection?.isConfidential == true, let index = deviceOf[channel],
      let device = host.devices[index]
    else { return [.hostVisible] }
    switch device.vsp.offer.flags.confidentiality {
    case .ringAndExternalMemory:
      return [host.configuration.acceptsSharedData ? .either : .encrypted]
    case .ring: return [.encrypted, .hostVisible]
    case .hostVisible, nil: return [.hostVisible]
    }
  }

  /// The guest wants its memory back. It is told so when no device uses it any more.
  func tearDownGPADL(_ id: GPADLID) {
    guard let entry = gpadls.remove(id) else { return perform(server.gpadlTornDown(id)) }
    let control = host.control
    let isFree = entry.tearDown { [weak self] in
      control.post { [weak self] in self?.letGo(of: id, entry) }
    }
    if isFree { return perform(server.gpadlTornDown(id)) }
    leaving[id] = entry
  }

  private func letGo(of id: GPADLID, _ entry: GPADLEntry) {
    // Of a channel that was revoked meanwhile, the guest has been answered.
    guard leaving[id] === entry else { return }
    leaving[id] = nil
    perform(server.gpadlTornDown(id))
  }

  /// The server has answered for the GPADLs of this channel, or the guest has forgotten them.
  func forgetGPADLs(of channel: ChannelID) {
    gpadls.removeAll(of: channel)
    leaving = leaving.filter { $0.value.channel != channel }
  }

  func forgetGPADLs() {
    gpadls.removeAll()
    leaving.removeAll()
  }
}
