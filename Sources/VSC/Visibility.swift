// SPDX-License-Identifier: Apache-2.0

/// Who can read a piece of memory, as a type (law 2). There are two of them and no author can add
/// a third.
public protocol Visibility: Sendable, SendableMetatype {
  /// Tells the two apart at run time, for messages and for the transports.
  static var memory: MemoryVisibility { get }
  static var seal: VisibilitySeal { get }
}

/// Private memory: in an isolated machine the host cannot read it, and must never be asked to.
public enum Encrypted: Visibility {
  public static var memory: MemoryVisibility { .encrypted }
  public static var seal: VisibilitySeal { VisibilitySeal() }
}

/// Shared memory: the host reads and writes it when it likes. All memory that a machine without
/// isolation gives to a device is of this kind.
public enum HostVisible: Visibility {
  public static var memory: MemoryVisibility { .hostVisible }
  public static var seal: VisibilitySeal { VisibilitySeal() }
}

/// The same as a value.
public enum MemoryVisibility: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  case encrypted
  case hostVisible = "host-visible"

  public var description: String { rawValue }
}

/// Only this module can make one, so only this module can declare a `Visibility`.
public struct VisibilitySeal: Sendable {}
