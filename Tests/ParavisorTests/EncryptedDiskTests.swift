// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedBus
import StorageVSC
import SystemPackage
import Testing
import VMBus
import VSC

@testable import Paravisor
@testable import SimulatedHost

/// A disk whose bytes the host has, and can't read.
@Suite(.timeLimit(.minutes(10))) struct EncryptedDiskTests {
  private static let key = (0..<64).map { UInt8($0) }
  /// Nothing else looks like it.
  private static let secret = Array("This must never be seen by the host!".utf8)

  private static func path(_ name: String) -> String {
    "/tmp/vmbus-test-\(name)-\(UInt32.random(in: 0 ... .max)).sock"
  }

  /// A host with a disk for a paravisor, in a file.
  private struct Bed {
    let host: SimulatedHost
    let file: String

    init() throws {
      host = try SimulatedHost(path: EncryptedDiskTests.path("host"))
      file = EncryptedDiskTests.path("disk")
      let descriptor = try FileDescriptor.open(
        FilePath(file), .readWrite, options: [.create], permissions: .ownerReadWrite)
      try descriptor.resize(to: 8 << 20)
      try descriptor.close()
      let instance: GUID = "5d15c000-0000-4000-8000-000000000001"
      var controller = SCSIController()
      _ = controller.attach(
        try SCSIDisk(DiskImage.open(path: file), identity: instance), lun: 0)
      host.add(StorVSP(controller, instance: instance), vtl: 2)
    }

    /// The host's bytes.
    func stored() throws -> [UInt8] {
      let descriptor = try FileDescriptor.open(FilePath(file), .readOnly)
      defer { try? descriptor.close() }
      var bytes = [UInt8](repeating: 0, count: 8 << 20)
      let count = try unsafe bytes.withUnsafeMutableBytes { unsafe try descriptor.read(into: $0) }
      return Array(bytes.prefix(count))
    }

    func stop() {
      host.stop()
      unlinkFile(file)
    }
  }

  private static func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
    guard let first = part.first else { return true }
    var start = bytes.startIndex
    while let found = bytes[start...].firstIndex(of: first) {
      if bytes[found...].starts(with: part) { return true }
      start = found + 1
    }
    return false
  }

  @Test func whatIsWrittenIsReadBackAndNotStored() async throws {
    let bed = try Bed()
    let disks = try await HostDisks.open(path: bed.host.path)
    let first = try #require(disks.disks.first)
    let disk = try #require(EncryptedDisk(first, key: Self.key))
    // Whole sectors, parts of one, parts of two, and over many.
    for (offset, count) in [(0, 512), (4096, 4096), (100, 36), (1000, 48), (511, 2), (9000, 5000)] {
      let data = (0..<count).map { Self.secret[$0 % Self.secret.count] }
      try disk.write(at: UInt64(offset), from: unsafe data.span.bytes)
      var back = [UInt8](repeating: 0, count: count)
      try read(disk, offset, &back)
      #expect(back == data)
    }
    try disk.flush()
    let stored = try bed.stored()
    #expect(!Self.contains(stored, Self.secret))
    // It is there, encrypted.
    var sector = Array(stored[4096..<4608])
    let cipher = try #require(SectorCipher(key: Self.key))
    let isDecrypted = cipher.decrypt(&sector, firstSector: 8)
    #expect(isDecrypted)
    #expect(Self.contains(sector, Self.secret))
    await disks.close()
    bed.stop()
  }

  private func read(_ disk: EncryptedDisk, _ offset: Int, _ bytes: inout [UInt8]) throws {
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    try disk.read(at: UInt64(offset), into: &raw)
  }

  @Test func discardedBytesReadAsZero() async throws {
    let bed = try Bed()
    let disks = try await HostDisks.open(path: bed.host.path)
    let first = try #require(disks.disks.first)
    let disk = try #require(EncryptedDisk(first, key: Self.key))
    let data = [UInt8](repeating: 0xEE, count: 4096)
    try disk.write(at: 0, from: unsafe data.span.bytes)
    try disk.discard(at: 512, count: 1024)
    var back = [UInt8](repeating: 1, count: 4096)
    try read(disk, 0, &back)
    #expect(back[..<512].allSatisfy { $0 == 0xEE })
    #expect(back[512..<1536].allSatisfy { $0 == 0 })
    #expect(back[1536...].allSatisfy { $0 == 0xEE })
    await disks.close()
    bed.stop()
  }

  /// A disk of the paravisor is no device of its guests.
  @Test func guestsOfTheHostDoNotSeeIt() async throws {
    let bed = try Bed()
    let bus = try await SimulatedBus.connect(path: bed.host.path)
    #expect(bus.devices.isEmpty)
    await bus.disconnect()
    bed.stop()
  }

  /// Through all three: the guest's ring and data are the paravisor's, the host has ciphertext.
  @Test(arguments: [OfferFlags.confidentialRingBuffer, .confidential])
  func aGuestUsesItThroughItsParavisor(_ flags: OfferFlags) async throws {
    let bed = try Bed()
    let disks = try await HostDisks.open(path: bed.host.path)
    let first = try #require(disks.disks.first)
    let encrypted = try #require(EncryptedDisk(first, key: Self.key))
    var configuration = SimulatedHost.Configuration()
    configuration.hostPath = bed.host.path
    configuration.leaves = IsolatedMachine(
      kind: .tdx, hasParavisor: true, offersConfidentialVMBus: true
    ).leaves(boundaryBit: 46)
    let paravisor = try SimulatedHost(path: Self.path("paravisor"), configuration)
    let instance: GUID = "9a7a5150-0000-4000-8000-000000000001"
    var controller = SCSIController()
    _ = controller.attach(try SCSIDisk(.other(encrypted), identity: instance), lun: 0)
    paravisor.add(StorVSP(controller, instance: instance, flags: flags))

    let bus = try await SimulatedBus.connect(path: paravisor.path, .init(machine: .confidential))
    let worker = try Worker(.init(name: "guest"))
    let transport = try #require(bus.devices.first)
    let device = Device(transport, workers: [worker])
    let disk = try await StorageVSC.open(device, .init(lun: 0))
    #expect(disk.information.ringMemory == .encrypted)
    #expect(disk.information.isBounced == (flags == .confidentialRingBuffer))
    let data = (0..<100_000).map { Self.secret[$0 % Self.secret.count] }
    try await disk.write(at: 12_345, data)
    try await disk.flush()
    #expect(try await disk.read(at: 12_345, count: data.count) == data)
    #expect(!Self.contains(try bed.stored(), Self.secret))
    await disk.close()
    await device.close()
    await bus.disconnect()
    worker.stop()
    paravisor.stop()
    await disks.close()
    bed.stop()
  }
}
