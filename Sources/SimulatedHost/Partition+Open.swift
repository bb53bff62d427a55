// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SystemPackage
import VMBus

/// Why a ring whose description is right is not served.
enum OpenFault: Error, Equatable, Sendable {
  /// The guest has no such processor.
  case processor(UInt32)
  /// Another open channel is signalled by that number already.
  case connectionInUse(UInt32)
  /// The device has gone, or has not let go of the channel's last ring.
  case notReady
  case memory(GuestMemoryError)
  case ring(RingError)
  case system(Errno)
}

extension OpenFault: CustomStringConvertible {
  var description: String {
    switch self {
    case .processor(let number): "the guest has no processor \(number)"
    case .connectionInUse(let id): "connection id \(id) is that of another open channel"
    case .notReady: "its device is not ready"
    case .memory(let error): "\(error)"
    case .ring(let error): "\(error)"
    case .system(let error): "no doorbell: \(error)"
    }
  }
}

// How a ring that a guest has described becomes a channel in the hands of a device.

extension Partition {
  func open(_ request: OpenRequest) {
    do throws(OpenFault) {
      try serve(request)
      perform(server.openCompleted(request.channel, .success))
    } catch {
      refuse("channel \(request.channel)", error)
      perform(server.openCompleted(request.channel, .unsuccessful))
    }
  }

  private func serve(_ request: OpenRequest) throws(OpenFault) {
    let id = request.channel
    guard let memory, let index = deviceOf[id], let device = host.devices[index],
      channels[id] == nil
    else { throw .notReady }
    guard
      let interrupt = ChannelInterrupt(
        synICs, processor: request.targetVP, flag: request.eventFlag)
    else { throw .processor(request.targetVP) }
    guard !channels.values.contains(where: { $0.connectionID == request.connectionID }) else {
      throw .connectionInUse(request.connectionID)
    }
    let mapping = try map(request, in: memory)
    let box = try doorbellOfChannel(request.connectionID)
    let offer = server.offers.first { $0.channelID == id }
    let subchannel = offer?.subchannelIndex ?? 0
    let monitorID = server.connection?.monitorPages == nil ? nil : offer?.monitor
    let (control, number) = (host.control, number)
    let worker = host.worker(for: index + Int(subchannel))
    let state = HostChannelState(
      mapping, split: Int(request.downstreamPageOffset) * 4096,
      wake: { worker.post {} },
      rescind: { [weak host] in host?.revoke(index) },
      offerSubchannels: { [weak self] count in
        control.post { [weak self] in self?.offerSubchannels(of: id, count: count) }
      },
      released: { [weak self] in
        worker.unwatch(box.event.rawValue)
        control.post { [weak self] in self?.closed(id) }
      })
    let channel: HostChannel
    do throws(RingError) {
      channel = try HostChannel(
        request, memory: memory, gpadls: gpadls, interrupt: interrupt, state: state,
        faults: ChannelFaults(device.faults), capture: host.configuration.capture,
        guest: number, subchannelIndex: subchannel,
        acceptsSharedData: host.configuration.acceptsSharedData)
    } catch {
      throw .ring(error)
    }
    channels[id] = OpenedChannel(
      state: state, interrupt: interrupt, connectionID: request.connectionID, monitor: monitorID)
    monitor?.watch(monitorID, box)
    if host.configuration.pollsRings { monitor?.poll(box) }
    let watch = host.configuration.watch
    worker.watch(box.event.rawValue) {
      box.event.drain()
      watch?.look(at: memory)
    }
    device.vsp.open(channel, on: worker)
    logger.debug("channel \(id) opened", metadata: ["device": "\(index)", "of": "\(number)"])
  }

  private func map(
    _ request: OpenRequest, in memory: GuestMemory
  ) throws(OpenFault) -> GuestMapping {
    do throws(GuestMemoryError) {
      return try memory.map(
        request.ringPages, in: request.confidentiality == .hostVisible ? .hostVisible : .encrypted)
    } catch {
      throw .memory(error)
    }
  }

  private func doorbellOfChannel(_ connectionID: UInt32) throws(OpenFault) -> EventBox {
    do throws(Errno) { return try doorbell(connectionID) } catch { throw .system(error) }
  }
}
