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
        let payload = try reader.take(Int(post.payloadByteCount))
        host.count(.plain)
        answer(door, accept(post, unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }))
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
      case .setGHCB:
        answer(door, setGHCB(try reader.read()))
      case .vmgexit:
        answer(door, vmgexit(try reader.read(LinkNumber.self).value))
      case .tdcall:
        answer(door, tdcall(try reader.read()))
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
      var proxies: [EventBox] = []
      for index in files..<(files + processors + hostInterrupts) {
        guard let event = message.takeDescriptor(index), EventDescriptor.adopt(event.rawValue)
        else { return .invalidParameter }
        if index < files + processors {
          synICs.append(GuestSynIC(memory, interrupt: event))
        } else {
          proxies.append(EventBox(event))
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

  func doorbell(_ connectionID: UInt32) throws(Errno) -> EventBox {
    if let box = doorbells[connectionID] { return box }
    guard memory != nil, doorbells.count < Self.maximumDoorbells else {
      throw .tooManyOpenFiles
    }
    let box = try EventBox()
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
      noteChangeInUse(change, memory)
      try memory.setVisibility(change)
      return relay?.setVisibility(change) ?? .success
    } catch {
      logger.warning("visibility not changed: \(error)")
      return .invalidParameter
    }
  }

  /// No page changes under somebody who has it: a GPADL is torn down first.
  private func noteChangeInUse(_ change: LinkVisibility, _ memory: GuestMemory) {
    let pages = memory.audit.pages(change)
    let boundary = memory.boundary
    if let (id, page) = gpadls.first(with: pages, boundary: boundary) {
      memory.audit.changedInUse(page, of: "GPADL \(id)")
    }
    for (id, entry) in leaving {
      guard let page = entry.page(in: pages, boundary: boundary) else { continue }
      memory.audit.changedInUse(page, of: "GPADL \(id)")
    }
    if let page = monitor?.gpn, pages.contains(page & ~boundary) {
      memory.audit.changedInUse(page, of: "the monitor")
    }
  }

  private func readLeaf(_ door: Door, _ number: UInt32) {
    let leaf = host.configuration.leaves[number] ?? CPUIDLeaf()
    answer(door, .success, LinkLeaf(leaf).wireBytes)
  }
}

// What guests call past their paravisor.
extension Partition {
  private func setGHCB(_ message: LinkPage) -> HypercallStatus {
    guard message.processor < synICs.count, memory?.contains(message.page, in: .hostVisible) == true
    else { return .invalidParameter }
    ghcbs[message.processor] = message.page
    return .success
  }

  /// The page is read once, and what is in it is the guest's word.
  private func vmgexit(_ processor: UInt32) -> HypercallStatus {
    guard let memory, let page = ghcbs[processor],
      var bytes = memory.read(page * 4096, count: 4096)
    else { return .invalidParameter }
    host.count(.vmgexit)
    let code = bytes[GHCBHypercall.codeOffset...].prefix(8).reversed()
      .reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    bytes.removeLast(4096 - PostedMessage.inputByteCount)
    let status: HypercallStatus
    if case .success(.postMessage) = Hypercall.decode(input: code, parameter: 0) {
      status = post(input: bytes)
    } else {
      status = .invalidCode
    }
    let answer = (0..<8).map { UInt8(truncatingIfNeeded: UInt64(status.rawValue) >> (8 * $0)) }
    memory.write(page * 4096 + UInt64(GHCBHypercall.codeOffset), answer)
    return .success
  }

  private func tdcall(_ message: LinkHypercall) -> HypercallStatus {
    host.count(.tdcall)
    switch Hypercall.decode(input: message.input, parameter: message.parameter) {
    case .success(.postMessage(let address)):
      guard let bytes = memory?.read(address, count: PostedMessage.inputByteCount) else {
        return .invalidParameter
      }
      return post(input: bytes)
    case .success: return .invalidCode
    case .failure(let refusal): return refusal.status
    }
  }

  private func post(input: [UInt8]) -> HypercallStatus {
    switch PostedMessage.parse(input) {
    case .success(let (message, payload)):
      var post = LinkPost()
      post.connectionID = message.connectionID
      post.messageType = message.type
      return accept(post, payload)
    case .failure(let refusal): return refusal.status
    }
  }
}
