// SPDX-License-Identifier: Apache-2.0

import CLinux
import SimulatedLink
import Testing
import VMBus

@testable import Platform
@testable import SimulatedHost

@Suite struct SecretWatchTests {
  static let secret = Array("a secret that nobody may see".utf8)

  /// Guest memory of two files: what the host sees, and what it does not.
  struct Bed: ~Copyable {
    let memory: GuestMemory
    let visible: MappedMemory
    let hidden: MappedMemory

    init(hidesPages: Bool = false) throws {
      let seen = try MemoryFile(name: "visible", byteCount: 1 << 20)
      let unseen = try MemoryFile(name: "hidden", byteCount: 1 << 20)
      let visible = try seen.map()
      let hidden = try unseen.map()
      var regions: [LinkRegion] = []
      for index in 0..<2 {
        var region = LinkRegion()
        region.firstPage = hidesPages ? 0 : GPN(index) << 20
        region.pageCount = 256
        region.file = UInt16(index)
        region.isEncrypted = UInt8(index)
        region.startsPrivate = hidesPages ? 1 : 0
        regions.append(region)
      }
      let message = SocketMessage(
        bytes: [], descriptors: [seen.owned.rawValue, unseen.owned.rawValue].map(vmbus_duplicate))
      memory = try GuestMemory(regions, boundaryBit: 46, fileCount: 2, from: message)
      self.visible = visible
      self.hidden = hidden
    }

    func plant(_ bytes: [UInt8], at offset: Int, in memory: borrowing MappedMemory) {
      unsafe UnsafeMutableRawBufferPointer(start: memory.start + offset, count: bytes.count)
        .copyBytes(from: bytes)
    }
  }

  @Test func findsWhatTheHostCanSee() throws {
    let bed = try Bed()
    let watch = SecretWatch([[], Array("something else".utf8), Self.secret])
    watch.look(at: bed.memory)
    // Encrypted memory is not the host's.
    bed.plant(Self.secret, at: 8192, in: bed.hidden)
    bed.plant(Array(Self.secret.dropLast()), at: 8192, in: bed.visible)
    watch.look(at: bed.memory)
    #expect(watch.counts == SecretWatch.Counts(looks: 2, findings: 0, firstPage: nil))
    // Over the border of two pages, behind a hole.
    bed.plant(Self.secret, at: 100 * 4096 - 5, in: bed.visible)
    watch.look(at: bed.memory)
    watch.look(at: bed.memory)
    #expect(watch.counts == SecretWatch.Counts(looks: 4, findings: 2, firstPage: 99))
    bed.plant([0], at: 100 * 4096 - 5, in: bed.visible)
    watch.look(at: bed.memory)
    #expect(watch.counts == SecretWatch.Counts(looks: 5, findings: 2, firstPage: 99))
  }

  /// A guest that says page by page what is visible.
  @Test func looksAtPagesThatAreVisibleNow() throws {
    let bed = try Bed(hidesPages: true)
    let watch = SecretWatch([Self.secret])
    bed.plant(Self.secret, at: 70 * 4096 + 9, in: bed.visible)
    watch.look(at: bed.memory)
    #expect(watch.counts.findings == 0)
    var change = LinkVisibility()
    (change.firstPage, change.pageCount, change.isHostVisible) = (69, 3, 1)
    try bed.memory.setVisibility(change)
    watch.look(at: bed.memory)
    #expect(watch.counts == SecretWatch.Counts(looks: 2, findings: 1, firstPage: 70))
  }
}
