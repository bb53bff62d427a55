// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SimulatedLink
import SystemPackage
import VMBus

// What a guest calls: its hypercalls and registers, as messages of a socket.

/// A socket on which a guest calls.
final class Door: Sendable {
  let socket: PacketSocket

  init(_ socket: consuming PacketSocket) { self.socket = socket }
}

extension Partition {
  func serve(_ door: Door) {
    host.control.watch(door.socket.rawValue) { [weak self] in self?.serveCall(door) }
  }

  private func serveCall(_ door: Door) {
    guard !isGone else { return }
    let message: SocketMessage
    do throws(Errno) {
      guard let received = try door.socket.receive() else {
        return close(door, "closed the connection")
      }
      message = received
    } catch .wouldBlock {
      return
    } catch {
      return close(door, "connection broke: \(error)")
    }
    let bytes = message.bytes
    do throws(WireError) {
      var reader = WireReader(unsafe bytes.span.bytes, name: "link call")
      let header = try reader.read(LinkHeader.self)
      switch LinkCall(rawValue: header.call) {
      case .join:
        let join = try reader.read(LinkJoin.self)
        guard join.regionCount <= 16, join.fileCount <= 16 else {
          return answer(door, .invalidParameter)
        }
        var regions: [LinkRegion] = []
        for _ in 0..<join.regionCount { regions.append(try reader.read()) }
        answer(door, self.join(join, regions, message))
      case .postMessage:
        let post = try reader.read(LinkPost.self)
        guard post.payloadByteCount <= UInt32(SynIC.maximumPayloadByteCount) else {
          return answer(door, .invalidParameter)
        }
        answer(door, accept(post, try reader.take(Int(post.payloadByteCount))))
      case .setSynIC:
        answer(door, setSynIC(try reader.read()))
      case .endOfMessage:
        let processor = try reader.read(LinkNumber.self).value
        guard processor < synICs.count else { return answer(door, .invalidParameter) }
        synICs[Int(processor)].endOfMessage()
        answer(door, .success)
      case .bindEvent:
        bindEvent(door, try reader.read(LinkNumber.self).value)
      case .openHostLink:
        openHostLink(door)
      case .setVisibility:
        answer(door, setVisibility(try reader.read()))
      case .readLeaf:
        readLeaf(door, try reader.read(LinkNumber.self).value)
      case nil:
        throw .unknownType("link call", value: UInt64(header.call))
      }
    } catch {
      logger.warning("malformed call: \(error)")
      answer(door, .invalidParameter)
    }
  }

  private func answer(
    _ door: Door, _ status: HypercallStatus, _ body: [UInt8] = [], descriptors: [Int32] = []
  ) {
    do throws(Errno) {
      try door.socket.send(LinkAnswer(status).wireBytes + body, descriptors: descriptors)
    } catch {
      close(door, "connection broke: \(error)")
    }
  }

  /// With its first socket the guest is gone.
  private func close(_ door: Door, _ reason: String) {
    guard door !== doors.first else { return leave(reason) }
    host.control.unwatch(door.socket.rawValue)
    doors.removeAll { $0 === door }
  }

  private func join(
    _ join: LinkJoin, _ regions: [LinkRegion], _ message: SocketMessage
  ) -> HypercallStatus {
    let (files, processors) = (Int(join.fileCount), Int(join.processorCount))
    let hostInterrupts = join.hasHostInterrupts == 0 ? 0 : processors
    guard memory == nil, join.magic == LinkJoin.expectedMagic,
      join.version == LinkJoin.expectedVersion, 1...64 ~= processors,
      1...16 ~= join.regionCount, 1...16 ~= files,
      message.descriptorCount == files + processors + hostInterrupts
    else { return .invalidParameter }
    do throws(GuestMemoryError) {
      let memory = try GuestMemory(
        regions, boundaryBit: join.boundaryBit, fileCount: files, from: message)
      var proxies: [OwnedEvent] = []
      for index in files..<(files + processors + hostInterrupts) {
        guard let event = message.takeDescriptor(index), EventDescriptor.adopt(event.rawValue)
        else { return .invalidParameter }
        if index < files + processors {
          synICs.append(GuestSynIC(memory, interrupt: event))
        } else {
          proxies.append(OwnedEvent(event))
        }
      }
      self.memory = memory
      isolation = join.isolation
      vtl = join.vtl
      let monitor = GuestMonitor(memory)
      self.monitor = monitor
      _ = host.control.attach(MonitorPoller(monitor))
      if isolation == .paravisor, let path = host.configuration.hostPath {
        relay = try HostRelay(self, path, memory, join, interrupts: proxies)
      }
      // Only now are devices offered: the flags depend on who we are to the guest.
      // In their order, so that each guest finds the same disk first.
      for (index, device) in host.devices.sorted(by: { $0.key < $1.key }) { offer(device, index) }
      logger.info("guest joined", metadata: ["machine": "\(join.isolation)"])
      return .success
    } catch {
      refuse("guest", error)
      return .invalidParameter
    }
  }

  private func setSynIC(_ registers: LinkSynIC) -> HypercallStatus {
    guard registers.processor < synICs.count else { return .invalidParameter }
    do throws(GuestMemoryError) {
      // A paravisor's SynIC lies in encrypted memory, a host's can't.
      try synICs[Int(registers.processor)].setPages(
        message: registers.messagePage == LinkSynIC.noPage ? nil : registers.messagePage,
        eventFlags: registers.eventFlagsPage == LinkSynIC.noPage ? nil : registers.eventFlagsPage,
        in: isolation == .paravisor ? .encrypted : .hostVisible)
      return .success
    } catch {
      logger.warning("SynIC refused: \(error)")
      return .invalidParameter
    }
  }

  private func bindEvent(_ door: Door, _ connectionID: UInt32) {
    do throws(Errno) {
      let box = try doorbell(connectionID)
      answer(door, .success, descriptors: [box.event.rawValue])
    } catch {
      refuse("doorbell", error)
      answer(door, .insufficientBuffers)
    }
  }

  func doorbell(_ connectionID: UInt32) throws(Errno) -> DoorbellBox {
    if let box = doorbells[connectionID] { return box }
    guard memory != nil, doorbells.count < Self.maximumDoorbells else {
      throw .tooManyOpenFiles
    }
    let box = try DoorbellBox()
    doorbells[connectionID] = box
    return box
  }

  // MARK: - Of a confidential machine

  /// Whoever is asked first is a paravisor, which asks the host; the host makes a door.
  private func openHostLink(_ door: Door) {
    guard memory != nil, doors.count < Self.maximumDoors else {
      return answer(door, .insufficientBuffers)
    }
    if isolation == .paravisor {
      guard let relay, let way = relay.openHostLink() else { return answer(door, .accessDenied) }
      return answer(door, .success, descriptors: [way.rawValue])
    }
    do throws(Errno) {
      let own = try PacketSocket { other throws(Errno) in
        try door.socket.send(LinkAnswer(.success).wireBytes, descriptors: [other])
      }
      let new = Door(own)
      doors.append(new)
      serve(new)
    } catch {
      close(door, "connection broke: \(error)")
    }
  }

  private static let maximumDoors = 4

  private func setVisibility(_ change: LinkVisibility) -> HypercallStatus {
    do throws(GuestMemoryError) {
      guard let memory else { return .accessDenied }
      try memory.setVisibility(change)
      return relay?.setVisibility(change) ?? .success
    } catch {
      logger.warning("visibility not changed: \(error)")
      return .invalidParameter
    }
  }

  private func readLeaf(_ door: Door, _ number: UInt32) {
    let leaf = host.configuration.leaves[number] ?? CPUIDLeaf()
    answer(door, .success, LinkLeaf(leaf).wireBytes)
  }
}

/// A box, since arrays hold no noncopyable values.
final class OwnedEvent: Sendable {
  let event: EventDescriptor

  init(_ owned: consuming OwnedDescriptor) { event = EventDescriptor(owned) }
}
