// SPDX-License-Identifier: Apache-2.0

/// Who can read a piece of memory, as a type (law 2). There are two of them and no author can add
/// a third.
public protocol Visibility: Sendable, SendableMetatype {
  /// Made for this type by this module.
  static var seal: VisibilitySeal<Self> { get }
}

extension Visibility {
  /// Tells the two apart at run time, for messages and for the transports. It comes with the seal,
  /// so it cannot be said of another type.
  public static var memory: MemoryVisibility { seal.memory }
}

/// Private memory: in an isolated machine the host cannot read it, and must never be asked to.
public enum Encrypted: Visibility {
  public static var seal: VisibilitySeal<Self> { VisibilitySeal(memory: .encrypted) }
}

/// Shared memory: the host reads and writes it when it likes. All memory that a machine without
/// isolation gives to a device is of this kind.
public enum HostVisible: Visibility {
  public static var seal: VisibilitySeal<Self> { VisibilitySeal(memory: .hostVisible) }
}

/// The same as a value.
public enum MemoryVisibility: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  case encrypted
  case hostVisible = "host-visible"

  public var description: String { rawValue }
}

/// Only this module can make one, and the one of another type does not fit: so only this module
/// can declare a `Visibility`.
public struct VisibilitySeal<Memory: Visibility>: Sendable {
  let memory: MemoryVisibility
}
