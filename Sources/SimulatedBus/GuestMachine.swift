// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedLink
import SystemPackage
import VMBus
import VSC

/// What kind of machine this process plays.
public enum Machine: String, Sendable, CaseIterable {
  /// Not isolated: the host sees all memory.
  case plain
  /// Isolated: the host sees host-visible memory only; encrypted memory never leaves this process.
  case isolated
  /// Isolated, joined to its paravisor, which is trusted and sees encrypted memory too. The host
  /// behind it sees host-visible memory only.
  case confidential
}

/// The machine that a driver's process is to the simulated host: memory, virtual processors with
/// their SynICs, and the calls that leave it.
final class GuestMachine: Sendable {
  let kind: Machine
  /// To whoever was joined: the host, or the paravisor of a confidential machine.
  let link: GuestLink
  /// The way past the paravisor. Nil where there is no paravisor, or one that has no host.
  let hostPath: HostPath?
  let pages: GuestPages
  let processors: [VirtualProcessor]
  /// What CPUID says of this machine.
  let isolation: Isolation

  init(
    path: String, kind: Machine, vtl: UInt8, processorCount: Int, memoryByteCount: Int
  ) throws(TransportError) {
    self.kind = kind
    let isIsolated = kind != .plain
    let byteCount = ((memoryByteCount + 4095) & ~4095) * (isIsolated ? 2 : 1)
    do throws(Errno) {
      link = try GuestLink(path: path)
    } catch {
      throw .system("simulated host", code: error.rawValue, text: "\(path): \(error)")
    }
    do throws(Errno) {
      pages = try GuestPages(byteCount: byteCount, isIsolated: isIsolated)
      var processors: [VirtualProcessor] = []
      for number in 0..<processorCount {
        processors.append(try VirtualProcessor(number))
      }
      self.processors = processors
    } catch {
      throw .system("guest machine", code: error.rawValue, text: "\(error)")
    }
    let hostLink: GuestLink?
    do throws(LinkError) {
      var joining = GuestLink.Joining()
      joining.isolation =
        switch kind {
        case .plain: .none
        case .isolated: .host
        case .confidential: .paravisor
        }
      joining.vtl = vtl
      pages.join(&joining, isTrusted: kind == .confidential)
      joining.interrupts = processors.map { $0.interrupt.rawValue }
      if kind == .confidential {
        joining.hostInterrupts = processors.map { $0.hostInterrupt.rawValue }
      }
      try link.join(joining)
      isolation = try Self.isolation(link)
      hostLink = kind == .confidential ? try Self.hostLink(link) : nil
    } catch {
      throw TransportError(error, "simulated host")
    }
    let link = link
    pages.joined { firstPage, pageCount, isHostVisible throws(TransportError) in
      do throws(LinkError) {
        try link.setVisibility(
          firstPage: firstPage, pageCount: pageCount, isHostVisible: isHostVisible)
      } catch {
        throw TransportError(error, "page visibility")
      }
    }
    hostPath = try Self.hostPath(hostLink, isolation, pages)
    for processor in processors { try addSynICs(processor) }
  }

  private static func hostLink(_ link: GuestLink) throws(LinkError) -> GuestLink? {
    do throws(LinkError) {
      return GuestLink(try link.openHostLink())
    } catch .refused {
      return nil
    } catch {
      throw error
    }
  }

  private static func hostPath(
    _ link: GuestLink?, _ isolation: Isolation, _ pages: GuestPages
  ) throws(TransportError) -> HostPath? {
    guard let link else { return nil }
    let page = try pages.allocate(.hostVisible, byteCount: 4096, use: "hypercall page")
    do throws(LinkError) { return try HostPath(link, isolation, page) } catch {
      throw TransportError(error, "hypercall page")
    }
  }

  private static func isolation(_ link: GuestLink) throws(LinkError) -> Isolation {
    var leaves: [UInt32: CPUIDLeaf] = [:]
    for number in Isolation.leafNumbers { leaves[number] = try link.leaf(number) }
    return Isolation { leaves[$0] ?? CPUIDLeaf() }
  }

  /// The paravisor's SynIC lies in encrypted memory, a host's cannot.
  private func addSynICs(_ processor: VirtualProcessor) throws(TransportError) {
    let isTrusted = kind == .confidential
    let own = try pages.allocate(
      isTrusted ? .encrypted : .hostVisible, byteCount: 2 * 4096, use: "SynIC")
    do throws(LinkError) {
      try processor.add(.init(isTrusted ? .trusted : .untrusted, link, own))
    } catch {
      throw TransportError(error, "SynIC")
    }
    guard let hostPath else { return }
    let hosts = try pages.allocate(.hostVisible, byteCount: 2 * 4096, use: "SynIC")
    do throws(LinkError) {
      try processor.add(.init(.untrusted, hostPath.link, hosts))
    } catch {
      throw TransportError(error, "SynIC of the host")
    }
  }

  // MARK: - Calls

  /// Posts to whoever has the control plane.
  func postMessage(
    _ message: OutgoingMessage, connectionID: UInt32, to side: MessageOrigin
  ) throws(TransportError) -> HypercallStatus {
    do throws(LinkError) {
      if side == .untrusted, let hostPath {
        return try hostPath.postMessage(connectionID: connectionID, message.array)
      }
      return try link.postMessage(
        connectionID: connectionID, messageType: SynIC.vmbusMessage, message.array)
    } catch {
      throw TransportError(error, "message")
    }
  }

  /// The doorbell of a channel: the paravisor's where the ring is encrypted, otherwise the host's.
  func bindEvent(
    _ connectionID: UInt32, _ confidentiality: Confidentiality
  ) throws(TransportError) -> EventDescriptor {
    do throws(LinkError) {
      let link = confidentiality == .hostVisible ? hostPath?.link ?? link : link
      return EventDescriptor(try link.bindEvent(connectionID))
    } catch {
      throw TransportError(error, "doorbell")
    }
  }
}

extension TransportError {
  fileprivate init(_ error: LinkError, _ what: WireName) {
    switch error {
    case .hostGone: self = .hostGone
    case .refused(let status):
      self = .system(what, code: 0, text: "the host refused this machine's call (\(status))")
    }
  }
}
