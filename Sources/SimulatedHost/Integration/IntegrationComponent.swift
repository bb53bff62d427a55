// SPDX-License-Identifier: Apache-2.0

public import IntegrationProtocol
public import VMBus

/// The integration components that this host has.
public enum IntegrationComponent: String, Sendable, CaseIterable {
  case heartbeat
  case timeSync = "timesync"
  case shutdown

  public var deviceClass: DeviceClass {
    switch self {
    case .heartbeat: .heartbeat
    case .timeSync: .timesync
    case .shutdown: .shutdown
    }
  }

  /// The instance that Hyper-V gives each machine.
  public var instance: GUID {
    switch self {
    case .heartbeat: "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0"
    case .timeSync: "2dd1ce17-079e-403c-b352-a1921ee207ee"
    case .shutdown: "b6650ff7-33bc-4840-8048-e0676786f393"
    }
  }

  var type: IntegrationMessageType {
    switch self {
    case .heartbeat: .heartbeat
    case .timeSync: .timeSync
    case .shutdown: .shutdown
    }
  }

  static let frameworkVersions = [IntegrationVersion(1, 0), IntegrationVersion(3, 0)]

  /// What this host speaks, the oldest first. Version 4.0 of the time's messages holds the guest's
  /// reference counter, which this host cannot read.
  public var versions: [IntegrationVersion] {
    let old = [IntegrationVersion(1, 0), IntegrationVersion(3, 0)]
    return self == .shutdown ? old + [IntegrationVersion(3, 1), IntegrationVersion(3, 2)] : old
  }

  /// Nanoseconds from one message to the next; 0 where there is one only when somebody asks.
  var period: UInt64 {
    switch self {
    case .heartbeat: 2_000_000_000
    case .timeSync: 5_000_000_000
    case .shutdown: 0
    }
  }
}

/// What the host wants of a guest whose end it asks for.
public enum IntegrationShutdown: String, Sendable, CaseIterable {
  case powerOff = "shutdown"
  case restart
  case hibernate

  var flags: ShutdownMessage.Flags {
    switch self {
    case .powerOff: []
    case .restart: .restart
    case .hibernate: .hibernate
    }
  }

  /// The oldest version that knows it.
  var version: IntegrationVersion {
    switch self {
    case .powerOff: IntegrationVersion(1, 0)
    case .restart: IntegrationVersion(3, 1)
    case .hibernate: IntegrationVersion(3, 2)
    }
  }
}
