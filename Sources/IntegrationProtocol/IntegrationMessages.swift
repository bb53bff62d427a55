// SPDX-License-Identifier: Apache-2.0

public import VMBus

// What the components' own messages hold behind the header.

/// The heartbeat: asked every other second, answered with a number that is larger by one.
public struct HeartbeatMessage: WireLayout, Equatable {
  public static let name: WireName = "HeartbeatMessage"
  public static let byteCount = 40

  /// How a guest is, in its own opinion. Linux has none and leaves 0.
  public struct State: WireInteger {
    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let unknown = Self(rawValue: 0)
    public static let healthy = Self(rawValue: 1)
    public static let critical = Self(rawValue: 2)
    public static let stopped = Self(rawValue: 3)
  }

  public var sequence: UInt64 = 0
  public var state: State = .unknown

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("sequence_number", &sequence)
    visitor.integer("application_state", &state)
    visitor.padding(28)
  }
}

/// The host's time, as it is told up to version 3.0. The guest knows when it came, and no better.
public struct TimeSyncMessage: WireLayout, Equatable {
  public static let name: WireName = "TimeSyncMessage"
  public static let byteCount = 25

  public struct Flags: OptionSet, WireInteger {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The guest is to set its clock.
    public static let sync = Self(rawValue: 1)
    /// What the guest may steer its clock by.
    public static let sample = Self(rawValue: 2)
  }

  /// Units of 100 ns from 1601 on, of the host's clock.
  public var hostTime: UInt64 = 0
  /// The same of the guest's clock, and of a message's way; 0 in what a host sends.
  public var guestTime: UInt64 = 0
  public var roundTrip: UInt64 = 0
  public var flags: Flags = []

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("parent_time", &hostTime)
    visitor.integer("child_time", &guestTime)
    visitor.integer("round_trip_time", &roundTrip)
    visitor.integer("flags", &flags)
  }

  /// 1970 in these units.
  public static let unixEpoch: UInt64 = 116_444_736_000_000_000
}

/// The host wants the guest to end.
public struct ShutdownMessage: WireLayout, Equatable {
  public static let name: WireName = "ShutdownMessage"
  public static let byteCount = 2060
  /// The reason that Windows calls planned.
  public static let planned: UInt32 = 0x8000_0000

  public struct Flags: OptionSet, WireInteger {
    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Programs are not asked.
    public static let force = Self(rawValue: 1)
    /// The guest begins again. Since version 3.1.
    public static let restart = Self(rawValue: 2)
    /// The guest sleeps on its disk. Since version 3.2.
    public static let hibernate = Self(rawValue: 4)
  }

  public var reason: UInt32 = 0
  /// Seconds that the guest may take; 0 is up to the guest.
  public var timeout: UInt32 = 0
  public var flags: Flags = []

  public init() {}

  /// Behind the flags lies a text of 2048 bytes for whoever sits at the guest; none is sent.
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("reason_code", &reason)
    visitor.integer("timeout_seconds", &timeout)
    visitor.integer("flags", &flags)
    visitor.padding(2048)
  }
}
