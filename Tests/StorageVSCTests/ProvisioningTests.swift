// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct ProvisioningTests {
  /// A disk with these limits, in blocks, and the features of page B2.
  static func machine(
    unmap: Int = 1000, fill: Int = 1000, features: UInt8 = 0xC4, transfer: Int = 0,
    _ change: (inout FakeController.Control) -> Void = { _ in }
  ) async throws -> Machine {
    try await Machine { control in
      control.disks[0]?.provisioning = FakeController.Provisioning(
        maximumTransfer: transfer, maximumUnmap: unmap, maximumFill: fill, features: features)
      change(&control)
    }
  }

  static func commands(_ machine: Machine) -> [UInt8] {
    machine.shared.control.withLock { $0.commands[0] }
  }

  @Test func tellsWhatTheDiskCanDo() async throws {
    let machine = try await Self.machine(transfer: 64)
    let disk = try machine.disk.information.disk
    #expect(disk.provisioning.canDiscard && disk.provisioning.canFill && disk.provisioning.isThin)
    #expect(disk.provisioning.maximumUnmapBlockCount == 1000)
    #expect(disk.provisioning.unmapGranularity == 8 && disk.provisioning.readsZeros)
    #expect(disk.isRotating == false)
    #expect(disk.geometry.maximumTransferByteCount == 64 * 512)
    _ = try await machine.disk.read(at: 0, count: 1 << 18)
    #expect(machine.shared.control.withLock { $0.largest } == 64 * 512)
  }

  @Test func discardCutsToWholeBlocksAndTheLimit() async throws {
    let machine = try await Self.machine(unmap: 100)
    var expected = machine.shared.bytes
    try await machine.disk.discard(at: 100, count: 200_000)
    // From the second block to the last whole one.
    let end = (100 + 200_000) / 512 * 512
    expected.replaceSubrange(512..<end, with: repeatElement(0, count: end - 512))
    #expect(machine.shared.bytes == expected)
    #expect(Self.commands(machine) == [UInt8](repeating: 0x42, count: (end - 512 + 51199) / 51200))
    // Less than a block is nothing.
    try await machine.disk.discard(at: 1, count: 1000)
    #expect(machine.shared.bytes == expected)
  }

  @Test func discardIsWriteSameWhereThatIsAllThereIs() async throws {
    let machine = try await Self.machine(unmap: 0, features: 0x44)
    try await machine.disk.discard(at: 0, count: 4096)
    #expect(Self.commands(machine) == [0x93])
  }

  @Test func discardWithoutSupportSaysSo() async throws {
    let machine = try await Machine()
    #expect(try !machine.disk.information.disk.provisioning.canDiscard)
    await #expect(throws: StorageError.unsupported) {
      try await machine.disk.discard(at: 0, count: 4096)
    }
    #expect(Self.commands(machine).isEmpty)
  }

  @Test(arguments: [(0, 8192), (100, 300), (100, 1000), (511, 2), (3, 600_000), (0, 1 << 20)])
  func zeroesAreZeroesAndNothingElse(_ offset: Int, _ count: Int) async throws {
    for provisioned in [true, false] {
      let machine = provisioned ? try await Self.machine(fill: 300) : try await Machine()
      var expected = machine.shared.bytes
      expected.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
      try await machine.disk.writeZeroes(at: UInt64(offset), count: UInt64(count))
      #expect(machine.shared.bytes == expected)
      #expect(Self.commands(machine).contains(0x93) == (provisioned && count >= 1000))
    }
  }

  @Test func aDiskThatRefusesToFillIsWrittenTo() async throws {
    let machine = try await Self.machine(fill: 100) { $0.unknown = [0x93] }
    var expected = machine.shared.bytes
    expected.replaceSubrange(100..<300_100, with: repeatElement(0, count: 300_000))
    try await machine.disk.writeZeroes(at: 100, count: 300_000, forced: true)
    #expect(machine.shared.bytes == expected)
    #expect(machine.shared.control.withLock { $0.flushes } == 1)
    // It is not asked again.
    let before = Self.commands(machine).filter { $0 == 0x93 }.count
    try await machine.disk.writeZeroes(at: 0, count: 65536)
    #expect(Self.commands(machine).filter { $0 == 0x93 }.count == before)
    await #expect(throws: StorageError.unsupported) {
      try await machine.disk.writeZeroes(at: 0, count: 65536, onlyFast: true)
    }
  }

  @Test func fastZeroesAreFastOrNotAtAll() async throws {
    let machine = try await Machine()
    await #expect(throws: StorageError.unsupported) {
      try await machine.disk.writeZeroes(at: 0, count: 4096, onlyFast: true)
    }
    #expect(Self.commands(machine).isEmpty)
    let fast = try await Self.machine()
    try await fast.disk.writeZeroes(at: 0, count: 4096, onlyFast: true)
    #expect(Self.commands(fast) == [0x93])
  }

  @Test func aReadOnlyDiskKeepsItsBlocks() async throws {
    let machine = try await Self.machine { $0.readOnly = true }
    await #expect(throws: StorageError.readOnly) {
      try await machine.disk.discard(at: 0, count: 4096)
    }
    await #expect(throws: StorageError.readOnly) {
      try await machine.disk.writeZeroes(at: 0, count: 4096)
    }
  }

  /// FUA where the disk knows it, else a flush behind all of the write.
  @Test(arguments: [true, false]) func aForcedWriteIsForced(_ canForce: Bool) async throws {
    let machine = try await Machine { $0.disks[0]?.canForce = canForce }
    try await machine.disk.write(at: 0, [UInt8](repeating: 1, count: 200_000), forced: true)
    let commands = Self.commands(machine)
    #expect(commands.last == (canForce ? 0x8A : 0x35))
    #expect(commands.filter { $0 == 0x35 }.count == (canForce ? 0 : 1))
  }

  @Test func aForcedWriteThatFailsIsNotFlushed() async throws {
    let machine = try await Machine { $0.disks[0]?.canForce = false }
    machine.shared.control.withLock { $0.failures = [check(0x3, 0x0C)] }
    await #expect(throws: StorageError.self) {
      try await machine.disk.write(at: 0, [UInt8](repeating: 1, count: 512), forced: true)
    }
    #expect(Self.commands(machine) == [0x8A])
  }

  @Test func threadsDiscardAndZeroToo() async throws {
    let machine = try await Self.machine()
    let disk = try machine.disk
    func both() throws {
      try disk.writeZeroes(at: 0, count: 1000)
      try disk.discard(at: 0, count: 4096)
    }
    try both()
    #expect(machine.shared.bytes[0..<4096].allSatisfy { $0 == 0 })
  }
}
