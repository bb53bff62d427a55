// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// What stands in for the processor's border between a guest and its host: a Unix socket that
/// keeps message boundaries (SOCK_SEQPACKET).
///
/// The guest calls, the host answers each call, in order. Only what a guest does with hypercalls
/// and registers goes this way; everything else lies in shared memory. Descriptors that come with
/// a message are named at it. All integers are little-endian.
public enum LinkCall: UInt32, Sendable {
  /// `LinkJoin`, then its `LinkRegion`s. Descriptors: the memory files in the order of the
  /// regions' indices, then one eventfd for each virtual processor, signalled for its interrupt.
  case join = 1
  /// `LinkPost`, then the payload: the hypercall HvPostMessage.
  case postMessage = 2
  /// `LinkSynIC`: the registers SIMP and SIEFP of one virtual processor.
  case setSynIC = 3
  /// `LinkNumber`: the register EOM of a processor.
  case endOfMessage = 4
  /// `LinkNumber`. The answer carries an eventfd, whose signal is the hypercall HvSignalEvent
  /// with this connection id, for as long as the guest stays: whether the channel is open or not.
  case bindEvent = 5
  /// The answer carries a socket: the caller's own way to its host, past the paravisor that is
  /// asked for it.
  case openHostLink = 6
  /// `LinkVisibility`: a hypercall that makes pages host-visible, or private again.
  case setVisibility = 7
  /// `LinkNumber`: a CPUID leaf, which the answer's `LinkLeaf` tells.
  case readLeaf = 8
  /// `LinkPage`: the GHCB of one virtual processor (SNP), a host-visible page.
  case setGHCB = 9
  /// `LinkNumber`: the processor whose GHCB holds a hypercall (`GHCBHypercall`). The hypercall's
  /// status is put there; the answer only says that the host has looked.
  case vmgexit = 10
  /// `LinkHypercall`: a hypercall past the paravisor of a TDX machine.
  case tdcall = 11
}

/// What each call starts with.
public struct LinkHeader: WireLayout, Equatable {
  public static let name: WireName = "link header"
  public static let byteCount = 4
  /// @0: a `LinkCall`.
  public var call: UInt32 = 0

  public init() {}
  public init(_ call: LinkCall) { self.call = call.rawValue }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("call", &call)
  }
}

/// A guest comes: its processors and its memory.
public struct LinkJoin: WireLayout, Equatable {
  public static let name: WireName = "link join"
  public static let byteCount = 16
  public static let expectedMagic: UInt32 = 0x4C53_4D56  // "VMSL"
  public static let expectedVersion: UInt16 = 1

  /// @0
  public var magic = LinkJoin.expectedMagic
  /// @4
  public var version = LinkJoin.expectedVersion
  /// @6
  public var isolation = MachineIsolation.none
  /// @7: the address bit that tells a host-visible page from a private one (vTOM), 0 for none.
  /// Page numbers may come with it or without.
  public var boundaryBit: UInt8 = 0
  /// @8: 1 to 64.
  public var processorCount: UInt16 = 0
  /// @10: 1 to 16.
  public var regionCount: UInt16 = 0
  /// @12: 1 to 16.
  public var fileCount: UInt16 = 0
  /// @14: the trust level that the joining party runs at: 0, or 2 for a paravisor.
  public var vtl: UInt8 = 0
  /// @15: 1 when as many eventfds follow the interrupts: those that the host signals, and for which
  /// the paravisor raises the guest's.
  public var hasHostInterrupts: UInt8 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("magic", &magic)
    visitor.integer("version", &version)
    visitor.integer("isolation", &isolation)
    visitor.integer("boundary_bit", &boundaryBit)
    visitor.integer("processor_count", &processorCount)
    visitor.integer("region_count", &regionCount)
    visitor.integer("file_count", &fileCount)
    visitor.integer("vtl", &vtl)
    visitor.integer("has_host_interrupts", &hasHostInterrupts)
  }
}

/// What the guest is to the one it joins.
public struct MachineIsolation: WireInteger, CustomStringConvertible {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// All memory is passed; none of it is hidden.
  public static let none = MachineIsolation(rawValue: 0)
  /// Only host-visible memory is passed; the other side is the untrusted host.
  public static let host = MachineIsolation(rawValue: 1)
  /// Encrypted memory is passed too; the other side is the paravisor, and trusted.
  public static let paravisor = MachineIsolation(rawValue: 2)

  public var description: String {
    switch self {
    case .none: "not isolated"
    case .host: "isolated"
    case .paravisor: "confidential"
    default: "isolation \(rawValue)"
    }
  }
}

/// A stretch of guest memory that the other side may see.
public struct LinkRegion: WireLayout, Equatable {
  public static let name: WireName = "link region"
  public static let byteCount = 32

  /// @0: its first guest page number.
  public var firstPage: UInt64 = 0
  /// @8
  public var pageCount: UInt64 = 0
  /// @16: bytes into the file, a multiple of 4096.
  public var fileOffset: UInt64 = 0
  /// @24: which of the memory files.
  public var file: UInt16 = 0
  /// @26: 1 for encrypted memory, 0 for host-visible (or plain) memory.
  public var isEncrypted: UInt8 = 0
  /// @27: 1 when no page of it is host-visible before `setVisibility` says so.
  public var startsPrivate: UInt8 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("first_page", &firstPage)
    visitor.integer("page_count", &pageCount)
    visitor.integer("file_offset", &fileOffset)
    visitor.integer("file", &file)
    visitor.integer("is_encrypted", &isEncrypted)
    visitor.integer("starts_private", &startsPrivate)
    visitor.padding(4)
  }
}

public struct LinkPost: WireLayout, Equatable {
  public static let name: WireName = "link post"
  public static let byteCount = 12
  /// @0
  public var connectionID: UInt32 = 0
  /// @4
  public var messageType: UInt32 = 0
  /// @8: at most 240.
  public var payloadByteCount: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("connection_id", &connectionID)
    visitor.integer("message_type", &messageType)
    visitor.integer("payload_size", &payloadByteCount)
  }
}

public struct LinkSynIC: WireLayout, Equatable {
  public static let name: WireName = "link SynIC"
  public static let byteCount = 24
  /// The register does not have its enable bit.
  public static let noPage = GPN.max

  /// @0
  public var processor: UInt32 = 0
  /// @8: guest page number of the message page, or `noPage`.
  public var messagePage: UInt64 = 0
  /// @16: guest page number of the event flags page, or `noPage`.
  public var eventFlagsPage: UInt64 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("processor", &processor)
    visitor.padding(4)
    visitor.integer("message_page", &messagePage)
    visitor.integer("event_flags_page", &eventFlagsPage)
  }
}

public struct LinkPage: WireLayout, Equatable {
  public static let name: WireName = "link page"
  public static let byteCount = 16
  /// @0
  public var processor: UInt32 = 0
  /// @8
  public var page: UInt64 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("processor", &processor)
    visitor.padding(4)
    visitor.integer("page", &page)
  }
}

public struct LinkHypercall: WireLayout, Equatable {
  public static let name: WireName = "link hypercall"
  public static let byteCount = 16
  /// @0: code and control bits.
  public var input: UInt64 = 0
  /// @8: the input of a fast call, otherwise the guest address where it lies.
  public var parameter: UInt64 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("input", &input)
    visitor.integer("parameter", &parameter)
  }
}

/// Where a hypercall lies in a GHCB page (Linux: `union hv_ghcb`): its input from 0 on, which is at
/// most 4072 bytes long, and its code.
public enum GHCBHypercall {
  /// The code and control bits; the hypervisor puts the status there.
  public static let codeOffset = 4080
}

/// Pages become host-visible, or private again. What they held is gone either way.
public struct LinkVisibility: WireLayout, Equatable {
  public static let name: WireName = "link visibility"
  public static let byteCount = 24
  /// @0: the first page's number.
  public var firstPage: UInt64 = 0
  /// @8
  public var pageCount: UInt64 = 0
  /// @16: 1 for host-visible, 0 for private.
  public var isHostVisible: UInt8 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("first_page", &firstPage)
    visitor.integer("page_count", &pageCount)
    visitor.integer("is_host_visible", &isHostVisible)
    visitor.padding(7)
  }
}

/// The registers of a CPUID leaf; follows the answer.
public struct LinkLeaf: WireLayout, Equatable {
  public static let name: WireName = "link leaf"
  public static let byteCount = 16
  /// @0: eax, ebx, ecx and edx.
  public var leaf = CPUIDLeaf()

  public init() {}
  public init(_ leaf: CPUIDLeaf) { self.leaf = leaf }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("eax", &leaf.eax)
    visitor.integer("ebx", &leaf.ebx)
    visitor.integer("ecx", &leaf.ecx)
    visitor.integer("edx", &leaf.edx)
  }
}

/// A processor, a connection id or a CPUID leaf, by the call.
public struct LinkNumber: WireLayout, Equatable {
  public static let name: WireName = "link number"
  public static let byteCount = 4
  public var value: UInt32 = 0

  public init() {}
  public init(_ value: UInt32) { self.value = value }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("value", &value)
  }
}

/// What each call is answered with.
public struct LinkAnswer: WireLayout, Equatable {
  public static let name: WireName = "link answer"
  public static let byteCount = 4
  /// @0
  public var status = HypercallStatus.success

  public init() {}
  public init(_ status: HypercallStatus) { self.status = status }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("status", &status)
    visitor.padding(2)
  }
}
