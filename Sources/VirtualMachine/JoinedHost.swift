// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import SystemPackage

/// The machine as a guest of whoever listens at a path: its host, or its paravisor.
final class JoinedHost: Sendable {
  let link: GuestLink
  /// Of an isolated machine, one for each processor.
  let hostSynICs: [HostSynIC]
  /// The way to the host past a paravisor, where that has one.
  let hostLink: GuestLink?

  /// Nil without a path.
  ///
  /// - Parameter pages: of an isolated machine.
  init?(
    _ path: String?, _ isolation: GuestIsolation, _ memory: MachineMemory,
    _ synICs: [SyntheticInterrupts], _ pages: HostSynICPages?
  ) throws(MachineError) {
    guard let path else { return nil }
    let link: GuestLink
    do throws(Errno) { link = try GuestLink(path: path) } catch { throw .noHost(path: path, error) }
    self.link = link
    var joining = GuestLink.Joining()
    guard let visible = memory.hostVisible, let pages else {
      joining.regions = memory.regions
      joining.files = [memory.file.owned.rawValue]
      joining.interrupts = synICs.map { $0.interrupt.rawValue }
      do throws(LinkError) { try link.join(joining) } catch { throw .host(error) }
      (hostSynICs, hostLink) = ([], nil)
      return
    }
    var hostSynICs: [HostSynIC] = []
    do throws(Errno) {
      for synIC in synICs {
        hostSynICs.append(
          try HostSynIC(
            synIC, pages, memory, takesMessages: !isolation.hasParavisor,
            isSeenByGuest: isolation.hasGHCB
          ) {
            _ = try? link.endOfMessage(processor: synIC.processor)
          })
      }
    } catch {
      throw .memory(error)
    }
    joining.boundaryBit = MachineLayout.boundaryBit
    joining.interrupts = hostSynICs.map { $0.signalled.rawValue }
    joining.regions = memory.regions.map { $0.starting(isPrivate: true) } + [pages.region(file: 1)]
    joining.files = [visible.file.owned.rawValue, pages.file.owned.rawValue]
    joining.isolation = .host
    if isolation.hasParavisor {
      // Private memory is the paravisor's to see, and in a file that it passes on to nobody.
      joining.isolation = .paravisor
      joining.regions += memory.regions.map { $0.starting(isPrivate: true, encryptedIn: 2) }
      joining.files.append(memory.file.owned.rawValue)
      joining.hostInterrupts = hostSynICs.map { $0.signalledPastParavisor.rawValue }
    }
    self.hostSynICs = hostSynICs
    do throws(LinkError) {
      try link.join(joining)
      let host = isolation.hasParavisor ? try Self.hostLink(past: link) : link
      for synIC in synICs {
        let number = synIC.processor
        try host?.setSynIC(
          processor: number,
          messagePage: isolation.hasParavisor
            ? nil : HostSynICPages.messagePage(ofProcessor: number),
          eventFlagsPage: HostSynICPages.eventFlagsPage(ofProcessor: number))
      }
      hostLink = isolation.hasParavisor ? host : nil
    } catch {
      throw .host(error)
    }
  }

  /// Nil of a paravisor without a host.
  private static func hostLink(past paravisor: GuestLink) throws(LinkError) -> GuestLink? {
    do throws(LinkError) {
      return GuestLink(try paravisor.openHostLink())
    } catch .refused {
      return nil
    } catch {
      throw error
    }
  }

  func leave() {
    link.shutDown()
    hostLink?.shutDown()
  }
}

extension LinkRegion {
  /// The region of an isolated machine, before its guest has made any page host-visible.
  fileprivate func starting(isPrivate: Bool, encryptedIn file: UInt16? = nil) -> LinkRegion {
    var region = self
    region.startsPrivate = isPrivate ? 1 : 0
    if let file {
      region.file = file
      region.isEncrypted = 1
    }
    return region
  }
}
