// SPDX-License-Identifier: Apache-2.0

/// A guest makes pages host-visible, or private again: HvModifySparseGpaPageHostVisibility, a call that
/// is repeated for each page. All of it is the guest's word.
/// (Hypervisor Top-Level Functional Specification, "Hypercall interface"; Linux:
/// `struct hv_gpa_range_for_visibility`.)
public struct VisibilityHypercall: Equatable, Sendable {
  public static let code: UInt64 = 0xDB
  /// Partition, visibility, reserved; then a page number of 8 bytes for each repetition.
  private static let headerByteCount = 16
  /// The only partition that a guest may name: its own.
  private static let ownPartition = UInt64.max
  private static let readAndWrite: UInt32 = 3

  /// The repetitions to be done: the list has those before them too.
  public let repetitions: Range<Int>
  /// Where the input lies in the guest's memory, within one page.
  public let inputAddress: UInt64

  public var inputByteCount: Int { Self.headerByteCount + 8 * repetitions.upperBound }

  /// - Parameters:
  ///   - input: the call's code and control bits.
  ///   - parameter: where its input lies.
  public static func decode(
    input: UInt64, parameter: UInt64
  ) -> Result<VisibilityHypercall, HypercallRefusal> {
    guard input & 0xFFFF == code else { return .failure(HypercallRefusal(.invalidCode)) }
    // Not a fast call, no variable header; the count and the start have 12 bits each, and all other
    // bits are reserved.
    guard input & ~0x0FFF_0FFF_0000_FFFF == 0 else {
      return .failure(HypercallRefusal(.invalidInput))
    }
    let (count, start) = (Int(input >> 32 & 0xFFF), Int(input >> 48 & 0xFFF))
    guard start < count else { return .failure(HypercallRefusal(.invalidInput)) }
    guard parameter & 7 == 0 else { return .failure(HypercallRefusal(.invalidAlignment)) }
    let call = VisibilityHypercall(repetitions: start..<count, inputAddress: parameter)
    guard Int(parameter & 4095) + call.inputByteCount <= 4096 else {
      return .failure(HypercallRefusal(.invalidAlignment))
    }
    return .success(call)
  }

  /// Takes the input apart.
  ///
  /// - Returns: whether the pages are to be host-visible, and their numbers, of all repetitions.
  public func parse(
    _ input: [UInt8]
  ) -> Result<(isHostVisible: Bool, pages: [GPN]), HypercallRefusal> {
    guard input.count >= inputByteCount else {
      return .failure(HypercallRefusal(.invalidInput))
    }
    func integer(_ offset: Int, _ count: Int) -> UInt64 {
      input[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    guard integer(0, 8) == Self.ownPartition else {
      return .failure(HypercallRefusal(.accessDenied))
    }
    let visibility = UInt32(truncatingIfNeeded: integer(8, 4))
    // Pages that the host may only read, or only write, there are none here; the rest is reserved.
    guard visibility == 0 || visibility == Self.readAndWrite, integer(12, 4) == 0 else {
      return .failure(HypercallRefusal(.invalidParameter))
    }
    let pages = (0..<repetitions.upperBound).map { integer(Self.headerByteCount + 8 * $0, 8) }
    return .success((visibility != 0, pages))
  }

  /// What the guest gets in its register: the status, and how many repetitions are done.
  public static func result(_ status: HypercallStatus, repetitions: Int) -> UInt64 {
    UInt64(status.rawValue) | UInt64(repetitions & 0xFFF) << 32
  }
}
