// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What a host can do for receive-side scaling (OID 0x00010203).
public struct RSSCapabilities: WireLayout, Equatable {
  public var header = NDISObjectHeader(type: 0x88, revision: 2, objectByteCount: 18)
  public var flags: RSSCapabilityFlags = []
  public var interruptMessages: UInt32 = 0
  /// Queues that packets can be spread over.
  public var receiveQueues: UInt32 = 0
  /// Of the largest indirection table.
  public var indirectionTableEntries: UInt16 = 128

  @inlinable public init() {}

  @inlinable
  public init(
    header: NDISObjectHeader = NDISObjectHeader(type: 0x88, revision: 2, objectByteCount: 18),
    flags: RSSCapabilityFlags = [], interruptMessages: UInt32 = 0, receiveQueues: UInt32 = 0,
    indirectionTableEntries: UInt16 = 128
  ) {
    self.header = header
    self.flags = flags
    self.interruptMessages = interruptMessages
    self.receiveQueues = receiveQueues
    self.indirectionTableEntries = indirectionTableEntries
  }

  @inlinable public static var name: WireName { "RSSCapabilities" }
  @inlinable public static var byteCount: Int { 18 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("flags", &flags)
    visitor.integer("interruptMessages", &interruptMessages)
    visitor.integer("receiveQueues", &receiveQueues)
    visitor.integer("indirectionTableEntries", &indirectionTableEntries)
  }
}

/// How packets are spread over queues (OID 0x00010204); table and key follow.
public struct RSSParameters: WireLayout, Equatable {
  public var header = NDISObjectHeader(type: 0x89, revision: 2, objectByteCount: 40)
  public var flags: RSSFlags = []
  public var baseProcessor: UInt16 = 0
  public var hash: RSSHash = []
  /// Bytes of the indirection table; each entry is a queue's number in 4 bytes.
  public var tableByteCount: UInt16 = 0
  /// Bytes from this structure's start.
  public var tableOffset: UInt32 = 40
  /// Always 40.
  public var keyByteCount: UInt16 = 40
  /// Bytes from this structure's start.
  public var keyOffset: UInt32 = 0
  public var processorMasksOffset: UInt32 = 0
  public var processorMaskCount: UInt32 = 0
  public var processorMaskByteCount: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    header: NDISObjectHeader = NDISObjectHeader(type: 0x89, revision: 2, objectByteCount: 40),
    flags: RSSFlags = [], baseProcessor: UInt16 = 0, hash: RSSHash = [], tableByteCount: UInt16 = 0,
    tableOffset: UInt32 = 40, keyByteCount: UInt16 = 40, keyOffset: UInt32 = 0,
    processorMasksOffset: UInt32 = 0, processorMaskCount: UInt32 = 0,
    processorMaskByteCount: UInt32 = 0
  ) {
    self.header = header
    self.flags = flags
    self.baseProcessor = baseProcessor
    self.hash = hash
    self.tableByteCount = tableByteCount
    self.tableOffset = tableOffset
    self.keyByteCount = keyByteCount
    self.keyOffset = keyOffset
    self.processorMasksOffset = processorMasksOffset
    self.processorMaskCount = processorMaskCount
    self.processorMaskByteCount = processorMaskByteCount
  }

  @inlinable public static var name: WireName { "RSSParameters" }
  @inlinable public static var byteCount: Int { 40 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("flags", &flags)
    visitor.integer("baseProcessor", &baseProcessor)
    visitor.integer("hash", &hash)
    visitor.integer("tableByteCount", &tableByteCount)
    visitor.padding(2)
    visitor.integer("tableOffset", &tableOffset)
    visitor.integer("keyByteCount", &keyByteCount)
    visitor.padding(2)
    visitor.integer("keyOffset", &keyOffset)
    visitor.integer("processorMasksOffset", &processorMasksOffset)
    visitor.integer("processorMaskCount", &processorMaskCount)
    visitor.integer("processorMaskByteCount", &processorMaskByteCount)
  }
}
