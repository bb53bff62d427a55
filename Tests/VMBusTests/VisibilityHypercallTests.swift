// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct VisibilityHypercallTests {
  static func decode(
    _ input: UInt64, _ parameter: UInt64 = 0x5000
  ) -> Result<VisibilityHypercall, HypercallRefusal> {
    VisibilityHypercall.decode(input: input, parameter: parameter)
  }

  static func status(_ input: UInt64, _ parameter: UInt64 = 0x5000) -> HypercallStatus? {
    if case .failure(let refusal) = decode(input, parameter) { return refusal.status }
    return nil
  }

  // Partition, visibility, reserved, then two pages; as Linux makes it.
  static let visible: [UInt8] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 3, 0, 0, 0, 0, 0, 0, 0,
    0x34, 0x12, 0, 0, 0, 0, 0, 0, 0x35, 0x12, 0, 0x04, 0, 0, 0, 0,
  ]

  @Test func linuxCallsAreKnown() throws {
    // Two repetitions, from the first one on.
    let call = try Self.decode(0x2_0000_00DB).get()
    #expect(call.repetitions == 0..<2 && call.inputAddress == 0x5000)
    #expect(call.inputByteCount == 32)
    let (isVisible, pages) = try call.parse(Self.visible).get()
    #expect(isVisible && pages == [0x1234, 0x0400_1235])
    var hidden = Self.visible
    hidden[8] = 0
    #expect(try call.parse(hidden).get().isHostVisible == false)
    // As many as a page has room for.
    #expect(try Self.decode(0x1FE_0000_00DB).get().inputByteCount == 4096)
  }

  @Test func aCallMayGoOnWhereItStopped() throws {
    let call = try Self.decode(0x0001_0002_0000_00DB).get()
    #expect(call.repetitions == 1..<2 && call.inputByteCount == 32)
    #expect(VisibilityHypercall.result(.success, repetitions: 2) == 0x2_0000_0000)
    #expect(VisibilityHypercall.result(.invalidParameter, repetitions: 1) == 0x1_0000_0005)
  }

  @Test func otherCallsAreNone() {
    for code: UInt64 in [0, 0x5C, 0xDA, 0xDC, 0x80DB] {
      #expect(Self.status(0x1_0000_0000 | code) == .invalidCode)
    }
  }

  @Test func controlBitsAreLookedAt() {
    // Fast, variable header, nested, reserved: all but the count's and the start's 12 bits.
    for bit in Array(16..<32) + Array(44..<48) + Array(60..<64) {
      #expect(Self.status(0x2_0000_00DB | 1 << UInt64(bit)) == .invalidInput)
    }
  }

  @Test func repetitionsAreLookedAt() {
    // None at all; from the end on; from behind it.
    #expect(Self.status(0xDB) == .invalidInput)
    #expect(Self.status(0x0002_0002_0000_00DB) == .invalidInput)
    #expect(Self.status(0x0FFF_0002_0000_00DB) == .invalidInput)
    // More than a page has room for.
    #expect(Self.status(0x1FF_0000_00DB) == .invalidAlignment)
    #expect(Self.status(0xFFF_0000_00DB) == .invalidAlignment)
  }

  @Test func inputsLieWithinAPage() {
    for offset: UInt64 in 1...7 {
      #expect(Self.status(0x1_0000_00DB, 0x5000 + offset) == .invalidAlignment)
    }
    #expect(Self.status(0x1_0000_00DB, 0x5FE8) == nil)
    #expect(Self.status(0x1_0000_00DB, 0x5FF0) == .invalidAlignment)
    #expect(Self.status(0x1_0000_00DB, .max & ~7) == .invalidAlignment)
  }

  @Test func inputsAreLookedAt() throws {
    let call = try Self.decode(0x2_0000_00DB).get()
    func status(_ change: (inout [UInt8]) -> Void) -> HypercallStatus? {
      var input = Self.visible
      change(&input)
      if case .failure(let refusal) = call.parse(input) { return refusal.status }
      return nil
    }
    #expect(status { _ in } == nil)
    #expect(status { $0.removeLast() } == .invalidInput)
    #expect(status { $0.removeAll() } == .invalidInput)
    // Another partition.
    #expect(status { $0[0] = 0 } == .accessDenied)
    // To be read only, or written only; bits behind that; reserved bytes.
    #expect(status { $0[8] = 1 } == .invalidParameter)
    #expect(status { $0[8] = 2 } == .invalidParameter)
    #expect(status { $0[8] = 7 } == .invalidParameter)
    #expect(status { $0[11] = 0x80 } == .invalidParameter)
    for index in 12..<16 { #expect(status { $0[index] = 1 } == .invalidParameter) }
  }
}
