// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// What stands between a driver and a simulated PCI function in another process: a Unix socket that keeps
/// message boundaries. The driver calls, the device answers each call, in order.
///
/// Only what a transport does with system calls goes this way. Registers lie in a memory file, which both
/// sides map; interrupts are eventfds; and the device reaches memory through windows that it was given,
/// by address. Each call is a `LinkHeader` with one of these numbers, and a body.
public enum PCILinkCall: UInt32, Sendable {
  /// The answer's body is `PCILinkFunction`, and its descriptor the memory file of BAR 0.
  case attach = 0x100
  /// `PCILinkConfiguration`; the answer's body is the same with the value.
  case readConfiguration = 0x101
  case writeConfiguration = 0x102
  /// An eventfd for each vector, from 0 on; none disables all.
  case setInterrupts = 0x103
  /// `PCILinkWindow`, and a memory file of at least its size: the device may reach it from now on.
  case map = 0x104
  /// `PCILinkWindow`: when it is answered the device has no transfer there and begins none.
  case unmap = 0x105
  /// A function-level reset.
  case reset = 0x106
}

/// What each answer starts with.
public struct PCILinkAnswer: WireLayout, Equatable {
  public static let name: WireName = "PCI link answer"
  public static let byteCount = 4
  /// @0: 0, or an `errno`.
  public var error: UInt32 = 0

  public init() {}
  public init(error: UInt32) { self.error = error }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("error", &error)
  }
}

/// A function as its device tells it.
public struct PCILinkFunction: WireLayout, Equatable {
  public static let name: WireName = "PCI link function"
  public static let byteCount = 24

  /// @0
  public var vendor: UInt16 = 0
  /// @2
  public var device: UInt16 = 0
  /// @4: base class, subclass, programming interface.
  public var classCode: UInt32 = 0
  /// @8
  public var revision: UInt8 = 0
  /// @9, 10: where it lies.
  public var bus: UInt8 = 0
  public var slot: UInt8 = 0
  /// @12
  public var vectorCount: UInt16 = 0
  /// @16: of BAR 0.
  public var registerByteCount: UInt64 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("vendor", &vendor)
    visitor.integer("device", &device)
    visitor.integer("class", &classCode)
    visitor.integer("revision", &revision)
    visitor.integer("bus", &bus)
    visitor.integer("slot", &slot)
    visitor.padding(1)
    visitor.integer("vectors", &vectorCount)
    visitor.padding(2)
    visitor.integer("register_bytes", &registerByteCount)
  }
}

/// A register of the configuration space.
public struct PCILinkConfiguration: WireLayout, Equatable {
  public static let name: WireName = "PCI link configuration"
  public static let byteCount = 12

  /// @0
  public var offset: UInt32 = 0
  /// @4: 1, 2 or 4 bytes.
  public var width: UInt32 = 0
  /// @8
  public var value: UInt32 = 0

  public init() {}
  public init(offset: UInt32, width: UInt32, value: UInt32 = 0) {
    (self.offset, self.width, self.value) = (offset, width, value)
  }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("offset", &offset)
    visitor.integer("width", &width)
    visitor.integer("value", &value)
  }
}

/// Memory that the device may reach.
public struct PCILinkWindow: WireLayout, Equatable {
  public static let name: WireName = "PCI link window"
  public static let byteCount = 24

  /// @0: the device's address of it, a multiple of 4096.
  public var address: UInt64 = 0
  /// @8: a multiple of 4096.
  public var byteCount: UInt64 = 0
  /// @16: bit 0: the device may read, bit 1: it may write.
  public var access: UInt32 = 0

  public init() {}
  public init(address: UInt64, byteCount: UInt64, access: UInt32) {
    (self.address, self.byteCount, self.access) = (address, byteCount, access)
  }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("address", &address)
    visitor.integer("byte_count", &byteCount)
    visitor.integer("access", &access)
    visitor.padding(4)
  }
}
