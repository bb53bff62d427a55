// SPDX-License-Identifier: Apache-2.0

/// Which of the 128 monitors a channel triggers: group * 32 + bit.
public struct MonitorID: Hashable, Sendable {
  public let rawValue: UInt8

  /// Nil for a number that no monitor has, such as 0xFF.
  public init?(_ rawValue: UInt8) {
    guard Int(rawValue) < MonitorPage.monitorCount else { return nil }
    self.rawValue = rawValue
  }

  public var group: Int { Int(rawValue / 32) }
  public var bit: Int { Int(rawValue % 32) }
  /// The bit as it stands in `trigger_group[group].pending`.
  public var mask: UInt32 { 1 << UInt32(rawValue % 32) }
}

/// Where things lie in a monitor page (4096 bytes). Offsets only: the page is the transport's.
///
/// A guest sets a channel's pending bit (atomically: other channels share the word) instead of a
/// hypercall, and the host looks at the page every so often.
public enum MonitorPage {
  public static let byteCount = 4096
  public static let monitorCount = 128
  public static let groupCount = 4
  /// u32; bits 0 to 3 enable the groups.
  public static let triggerStateOffset = 0

  /// u32: one bit per monitor that was triggered. `trigger_group[4]` starts at 8.
  public static func pendingOffset(_ monitor: MonitorID) -> Int { 8 + 8 * monitor.group }

  /// u32: one bit per monitor that is armed.
  public static func armedOffset(_ monitor: MonitorID) -> Int { 12 + 8 * monitor.group }

  /// u32; `next_check_time[4][32]`.
  public static func nextCheckTimeOffset(_ monitor: MonitorID) -> Int {
    64 + 4 * Int(monitor.rawValue)
  }

  /// u16, in units of 100 ns; `latency[4][32]`.
  public static func latencyOffset(_ monitor: MonitorID) -> Int {
    576 + 2 * Int(monitor.rawValue)
  }

  /// `MonitorParameter`; `parameter[4][32]`.
  public static func parameterOffset(_ monitor: MonitorID) -> Int {
    1088 + MonitorParameter.byteCount * Int(monitor.rawValue)
  }
}

/// What the host is signalled with when it finds a monitor triggered.
public struct MonitorParameter: WireLayout, Equatable {
  public static let name: WireName = "MonitorParameter"
  public static let byteCount = 8

  public var connectionID: UInt32 = 0
  public var flagNumber: UInt16 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("connection_id", &connectionID)
    visitor.integer("flag_number", &flagNumber)
    visitor.padding(2)
  }
}

/// The guest physical addresses of the two monitor pages.
public struct MonitorPages: WireLayout, Equatable {
  public static let name: WireName = "MonitorPages"
  public static let byteCount = 16

  public var parentToChild: UInt64 = 0
  public var childToParent: UInt64 = 0

  public init() {}

  public init(parentToChild: UInt64, childToParent: UInt64) {
    self.parentToChild = parentToChild
    self.childToParent = childToParent
  }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("parent_to_child_monitor_page_gpa", &parentToChild)
    visitor.integer("child_to_parent_monitor_page_gpa", &childToParent)
  }

  /// Neither page is there.
  public var isEmpty: Bool { parentToChild == 0 && childToParent == 0 }
  /// Both or neither: what the guest may give.
  public var isPair: Bool { (parentToChild == 0) == (childToParent == 0) }
}
