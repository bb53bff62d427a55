// SPDX-License-Identifier: Apache-2.0

import NVMeProtocol
import Testing
import VMBus

/// Bytes by hand from NVMe Base 1.4 (4.2, 4.6, 5, 6) and its figures.
@Suite struct NVMeProtocolTests {
  @Test func readCommand() throws {
    // Opcode 2, id 0x1234, namespace 1, two PRPs, 8 blocks (less one: 7) from 0x1_0000_0010 on.
    var command = NVMeCommand(.read, namespace: 1, block: 0x1_0000_0010, count: 8)
    command.identifier = 0x1234
    command.data1 = 0x1122_3344_5566_7000
    command.data2 = 0x8899_AABB_CCDD_E000
    let bytes: [UInt8] =
      [0x02, 0x00, 0x34, 0x12, 0x01, 0, 0, 0] + Array(repeating: 0, count: 16)
      + [0x00, 0x70, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
      + [0x00, 0xE0, 0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0x88]
      + [0x10, 0, 0, 0, 0x01, 0, 0, 0, 0x07, 0, 0, 0] + Array(repeating: 0, count: 12)
    #expect(command.wireBytes == bytes)
    #expect(command.wireBytes.count == 64)
    #expect(try NVMeCommand(parsing: bytes) == command)
    #expect(command.block == 0x1_0000_0010 && command.blockCount == 8)
  }

  /// What a data path stores is what is told field by field: each field has bytes of its own.
  @Test func wordsOfACommand() throws {
    let bytes = (0..<64).map { (8..<16).contains($0) ? 0 : UInt8($0 + 1) }
    let command = try NVMeCommand(parsing: bytes)
    let words = command.words
    for index in words.indices {
      let word = bytes[index * 8..<index * 8 + 8].reversed().reduce(UInt64(0)) {
        $0 << 8 | UInt64($1)
      }
      #expect(words[index] == word, "word \(index)")
    }
  }

  /// A data block of 0x20000 bytes: the flags' bits 7 and 6 are 01, and its type and subtype are 0.
  @Test func descriptor() throws {
    var command = NVMeCommand(.write, namespace: 1, block: 0, count: 256)
    command.descriptor = NVMeDescriptor(address: 0x1122_3344_5566_7200, length: 0x20000)
    let bytes = command.wireBytes
    #expect(Array(bytes[0..<2]) == [0x01, 0x40])
    let descriptor: [UInt8] =
      [0x00, 0x72, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11] + [0, 0, 2, 0] + [0, 0, 0, 0]
    #expect(Array(bytes[24..<40]) == descriptor)
    #expect(try NVMeDescriptor(parsing: descriptor) == command.descriptor)
    // A last segment, by its address: what comes after it is no data.
    command.data2 |= 0x30 << 56
    #expect(command.descriptor?.type == 0x30)
    #expect(command.descriptor?.wireBytes.last == 0x30)
    // Other flags mean pages, or metadata of its own.
    command.flags = 0x80
    #expect(command.descriptor == nil)
    command.flags = 0x40
    command.descriptor = nil
    #expect(command.flags == 0 && command.data1 == 0 && command.data2 == 0)
  }

  @Test func forcedWrite() {
    let command = NVMeCommand(.write, namespace: 2, block: 0, count: 65536, forced: true)
    let bytes = command.wireBytes
    #expect(bytes[0] == 0x01 && bytes[4] == 0x02)
    // Bit 30 of word 12, and the number of blocks less one.
    #expect(Array(bytes[48..<52]) == [0xFF, 0xFF, 0x00, 0x40])
    #expect(command.isForced && command.blockCount == 65536)
  }

  @Test func otherCommands() {
    #expect(NVMeCommand(.flush, namespace: 3).wireBytes[0] == 0)
    var zeroes = NVMeCommand(.writeZeroes, namespace: 1, block: 1, count: 1)
    zeroes.mayDeallocate = true
    #expect(zeroes.wireBytes[0] == 0x08 && Array(zeroes.wireBytes[48..<52]) == [0, 0, 0, 2])
    let deallocate = NVMeCommand.deallocate(namespace: 1, rangeCount: 3).wireBytes
    #expect(deallocate[0] == 0x09 && deallocate[40] == 2 && deallocate[44] == 4)
    #expect(
      NVMeRange(block: 0x0102_0304_0506_0708, blockCount: 0x11).wireBytes
        == [0, 0, 0, 0, 0x11, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1])
  }

  @Test func adminCommands() {
    let identify = NVMeCommand.identify(1).wireBytes
    #expect(identify[0] == 0x06 && identify[40] == 1)
    // 256 entries, queue 3, vector 2, interrupts enabled, contiguous.
    let completions = NVMeCommand.createCompletionQueue(
      3, address: 0x5000, entries: 256, vector: 2
    ).wireBytes
    #expect(completions[0] == 0x05 && Array(completions[24..<26]) == [0x00, 0x50])
    #expect(Array(completions[40..<48]) == [0x03, 0x00, 0xFF, 0x00, 0x03, 0x00, 0x02, 0x00])
    let submissions = NVMeCommand.createSubmissionQueue(
      3, address: 0x6000, entries: 64, completionQueue: 3
    ).wireBytes
    #expect(submissions[0] == 0x01)
    #expect(Array(submissions[40..<48]) == [0x03, 0x00, 0x3F, 0x00, 0x01, 0x00, 0x03, 0x00])
    let feature = NVMeCommand.setFeature(.queueCount, 3 << 16 | 3).wireBytes
    #expect(feature[0] == 0x09 && Array(feature[40..<48]) == [7, 0, 0, 0, 3, 0, 3, 0])
    // The list of changed namespaces, 1024 words (less one).
    let log = NVMeCommand.logPage(4, byteCount: 4096).wireBytes
    #expect(log[0] == 0x02 && Array(log[4..<8]) == [0xFF, 0xFF, 0xFF, 0xFF])
    #expect(Array(log[40..<44]) == [0x04, 0x00, 0xFF, 0x03])
    let abort = NVMeCommand.abort(0x0708, of: 2).wireBytes
    #expect(abort[0] == 0x08 && Array(abort[40..<44]) == [0x02, 0x00, 0x08, 0x07])
    #expect(NVMeCommand(.asynchronousEvent).wireBytes[0] == 0x0C)
  }

  @Test func completion() throws {
    // Result 0x11, head 5, queue 2, id 0xBEEF, phase 1, unrecovered read (type 2, code 0x81), not again.
    let status: UInt16 = 1 | 0x81 << 1 | 2 << 9 | 1 << 15
    let bytes: [UInt8] = [
      0x11, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2, 0, 0xEF, 0xBE, UInt8(status & 0xFF), UInt8(status >> 8),
    ]
    let completion = try NVMeCompletion(parsing: bytes)
    #expect(completion.result == 0x11 && completion.head == 5 && completion.queue == 2)
    #expect(completion.identifier == 0xBEEF && completion.status & 1 == 1)
    let found = NVMeStatus(field: completion.status)
    #expect(found.condition == .unrecoveredRead && found.isFinal)
    #expect(found.field | 1 == status)
    #expect(NVMeStatus(field: 1).condition == .success)
    #expect(completion.wireBytes == bytes)
  }

  @Test func capabilities() {
    // 1024 entries, contiguous, 20 half seconds, stride 2^(2+1), NVM commands, pages of 4 KiB to 64 KiB.
    let value: UInt64 = 0x3FF | 1 << 16 | 20 << 24 | 1 << 32 | 1 << 37 | 0 << 48 | 4 << 52
    let found = NVMeCapabilities(rawValue: value)
    #expect(found.maximumEntries == 1024 && found.timeout == 10_000_000_000)
    #expect(found.doorbellStride == 8 && found.hasNVMCommands)
    #expect(found.minimumPageByteCount == 4096)
    #expect(NVMeRegister.tail(3, stride: 8) == 0x1000 + 48)
    #expect(NVMeRegister.head(3, stride: 8) == 0x1000 + 56)
    #expect(NVMeCapabilities(rawValue: .max).doorbellStride == 4 << 15)
    #expect(NVMeConfiguration.on.rawValue == 0x0046_0001)
    var shutdown = NVMeConfiguration.on
    shutdown.shutdown = 1
    #expect(shutdown.rawValue == 0x0046_4001)
    #expect(NVMeControllerStatus(rawValue: 1).isReady)
    #expect(NVMeControllerStatus(rawValue: 3).hasFailed)
    #expect(NVMeControllerStatus(rawValue: .max).isGone)
    #expect(!NVMeControllerStatus(rawValue: .max).isReady)
    #expect("\(NVMeVersion(rawValue: 0x0001_0300))" == "NVMe 1.3")
    #expect("\(NVMeVersion(rawValue: 0x0001_0201))" == "NVMe 1.2.1")
  }

  @Test func controllerData() throws {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes[0] = 0x36
    bytes[1] = 0x1B
    bytes.replaceSubrange(4..<24, with: Array("S123                ".utf8))
    bytes.replaceSubrange(24..<64, with: Array("A model".utf8) + Array(repeating: 32, count: 33))
    bytes.replaceSubrange(64..<72, with: Array("8.0     ".utf8))
    bytes[77] = 7
    bytes.replaceSubrange(80..<84, with: [0, 4, 1, 0])
    bytes[93] = 1
    bytes[258] = 3
    bytes[259] = 3
    bytes[512] = 0x66
    bytes[513] = 0x44
    bytes[516] = 2
    bytes[520] = 0x0C
    bytes[525] = 1
    bytes[536] = 1
    let data = try NVMeControllerData(parsing: bytes)
    #expect(data.vendor == 0x1B36 && data.serial.text == "S123" && data.model.text == "A model")
    #expect(data.firmware.text == "8.0" && data.maximumTransfer == 7)
    #expect("\(data.version)" == "NVMe 1.4" && data.tellsOfNamespaces)
    #expect(data.abortLimit == 3 && data.eventLimit == 3 && data.takesEntries)
    #expect(data.namespaceCount == 2 && data.hasDatasetManagement && data.hasWriteZeroes)
    #expect(data.hasWriteCache && data.scatterGather == 1 && data.takesDescriptors)
    #expect(data.wireBytes == Array(bytes.prefix(540)))
  }

  @Test func namespaceData() throws {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.replaceSubrange(0..<8, with: [0, 0, 2, 0, 0, 0, 0, 0])
    bytes[8] = 9
    bytes[24] = 0x11
    bytes[25] = 1
    bytes[26] = 1
    bytes[33] = 0x09
    bytes[46] = 16
    bytes[64] = 7
    bytes[68] = 15
    bytes[99] = 1
    bytes.replaceSubrange(128..<136, with: [0, 0, 9, 0, 8, 0, 12, 0])
    let data = try NVMeNamespaceData(parsing: bytes)
    #expect(data.size == 0x20000 && data.capacity == 9 && data.isThin && data.hasGranularities)
    #expect(data.formatIndex == 1 && data.blockFormat?.metadata == 8)
    #expect(data.blockFormat?.power == 12)
    #expect(data.readsZeros && data.zeroesByDeallocation && data.isWriteProtected)
    #expect(data.optimalBoundary == 16 && data.writeGranularity == 7)
    #expect(data.deallocationGranularity == 15)
    #expect(data.wireBytes == Array(bytes.prefix(192)))
    // A format beyond those that are told is none.
    bytes[26] = 2
    #expect(try NVMeNamespaceData(parsing: bytes).blockFormat == nil)
    bytes[26] = 0x6F
    #expect(try NVMeNamespaceData(parsing: bytes).blockFormat == nil)
  }

  @Test func tooShort() {
    #expect(throws: WireError.self) {
      try NVMeControllerData(parsing: [UInt8](repeating: 0, count: 539))
    }
    #expect(throws: WireError.self) {
      try NVMeNamespaceData(parsing: [UInt8](repeating: 0, count: 191))
    }
    #expect(throws: WireError.self) {
      try NVMeCompletion(parsing: [UInt8](repeating: 0, count: 15))
    }
    #expect(TextBytes<4>("a\u{e9}\u{7}bcd").text == "a???")
  }
}
