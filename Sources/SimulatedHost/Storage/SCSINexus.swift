// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Synchronization

/// What a unit has to tell each of its clients once, whatever the client asks next. In the order
/// in which they are told.
enum UnitAttention: Int, CaseIterable {
  case powerOn
  case busReset
  case deviceReset
  case modeParametersChanged
  case capacityChanged
  case inventoryChanged

  var sense: SCSISense {
    switch self {
    case .powerOn: SCSISense(key: .unitAttention, code: 0x29, qualifier: 0x00)
    case .busReset: SCSISense(key: .unitAttention, code: 0x29, qualifier: 0x02)
    case .deviceReset: SCSISense(key: .unitAttention, code: 0x29, qualifier: 0x03)
    case .modeParametersChanged: SCSISense(key: .unitAttention, code: 0x2A, qualifier: 0x01)
    case .capacityChanged: SCSISense(key: .unitAttention, code: 0x2A, qualifier: 0x09)
    case .inventoryChanged: SCSISense(key: .unitAttention, code: 0x3F, qualifier: 0x0E)
    }
  }
}

/// One guest as a controller sees it, from the opening of the primary channel to its end: what
/// its channels share (SCSI's I_T nexus).
///
/// Workers that serve the channels use it at the same time, so it is atomics: a bit for each LUN.
public final class SCSINexus: Sendable {
  /// A bit is set where there is something to tell; looked at before each command.
  private let pending = Atomic<UInt64>(0)
  private let kinds: InlineArray<6, Atomic<UInt64>> = InlineArray { _ in Atomic(0) }
  /// The version that the primary channel has agreed on, or 0 while it is not ready.
  private let agreed = Atomic<UInt16>(0)

  public init() {}

  /// The protocol version of the primary channel once its start-up is over.
  public var version: StorageVersion? {
    let raw = agreed.load(ordering: .acquiring)
    return raw == 0 ? nil : StorageVersion(rawValue: raw)
  }

  func setReady(_ version: StorageVersion?) {
    agreed.store(version?.rawValue ?? 0, ordering: .releasing)
  }

  /// - Parameter units: a bit for each LUN.
  func establish(_ attention: UnitAttention, units: UInt64) {
    kinds[attention.rawValue].bitwiseOr(units, ordering: .relaxed)
    pending.bitwiseOr(units, ordering: .releasing)
  }

  /// A unit goes: it has nothing to tell any more.
  func clear(units: UInt64) {
    for kind in kinds.indices { kinds[kind].bitwiseAnd(~units, ordering: .relaxed) }
    pending.bitwiseAnd(~units, ordering: .relaxed)
  }

  func hasAttention(lun: UInt8) -> Bool {
    pending.load(ordering: .relaxed) & Self.bit(lun) != 0
  }

  /// What the unit has to tell next. It is told once, to whichever channel asks first.
  @inline(never)
  func takeAttention(lun: UInt8) -> UnitAttention? {
    let bit = Self.bit(lun)
    // Cleared first, so that what is established meanwhile is not lost.
    pending.bitwiseAnd(~bit, ordering: .acquiringAndReleasing)
    var found: UnitAttention?
    for attention in UnitAttention.allCases {
      if found == nil {
        let before = kinds[attention.rawValue].bitwiseAnd(~bit, ordering: .relaxed).oldValue
        if before & bit != 0 { found = attention }
      } else if kinds[attention.rawValue].load(ordering: .relaxed) & bit != 0 {
        pending.bitwiseOr(bit, ordering: .releasing)
      }
    }
    return found
  }

  /// REPORT LUNS tells what this one would.
  func forgetInventory() {
    kinds[UnitAttention.inventoryChanged.rawValue].store(0, ordering: .relaxed)
  }

  static func bit(_ lun: UInt8) -> UInt64 { lun < 64 ? 1 << UInt64(lun) : 0 }
}
