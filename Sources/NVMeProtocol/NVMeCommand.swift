// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// An entry of a submission queue.
public struct NVMeCommand: WireLayout, Equatable {
  public static let name: WireName = "NVMe command"
  @inlinable public static var byteCount: Int { 64 }

  /// @0
  public var opcode: UInt8 = 0
  /// @1: bits 7 and 6 tell that data is described by an SGL, bits 1 and 0 that commands are fused.
  public var flags: UInt8 = 0
  /// @2: comes back with the completion.
  public var identifier: UInt16 = 0
  /// @4: 0 for none, all ones for all.
  public var namespace: UInt32 = 0
  /// @16
  public var metadata: UInt64 = 0
  /// @24: the address of the data, up to the end of that page.
  public var data1: UInt64 = 0
  /// @32: the address of the second page, or of the list of all that follow.
  public var data2: UInt64 = 0
  /// @40: words 10 to 15, whose meaning is the command's.
  public var word10: UInt32 = 0
  public var word11: UInt32 = 0
  public var word12: UInt32 = 0
  public var word13: UInt32 = 0
  public var word14: UInt32 = 0
  public var word15: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("opcode", &opcode)
    visitor.integer("flags", &flags)
    visitor.integer("command_id", &identifier)
    visitor.integer("namespace", &namespace)
    visitor.padding(8)
    visitor.integer("metadata", &metadata)
    visitor.integer("prp1", &data1)
    visitor.integer("prp2", &data2)
    visitor.integer("cdw10", &word10)
    visitor.integer("cdw11", &word11)
    visitor.integer("cdw12", &word12)
    visitor.integer("cdw13", &word13)
    visitor.integer("cdw14", &word14)
    visitor.integer("cdw15", &word15)
  }

  /// The same 64 bytes as eight words, little-endian in memory: a data path stores these, which takes a
  /// tenth of the instructions of a visit.
  @inlinable public var words: InlineArray<8, UInt64> {
    [
      UInt64(opcode) | UInt64(flags) &<< 8 | UInt64(identifier) &<< 16 | UInt64(namespace) &<< 32,
      0, metadata, data1, data2,
      UInt64(word10) | UInt64(word11) &<< 32,
      UInt64(word12) | UInt64(word13) &<< 32,
      UInt64(word14) | UInt64(word15) &<< 32,
    ]
  }
}

/// An entry of a completion queue.
public struct NVMeCompletion: WireLayout, Equatable {
  public static let name: WireName = "NVMe completion"
  @inlinable public static var byteCount: Int { 16 }

  /// @0: what a command returns beside its data.
  public var result: UInt32 = 0
  /// @8: how far the controller has read the submission queue.
  public var head: UInt16 = 0
  /// @10
  public var queue: UInt16 = 0
  /// @12
  public var identifier: UInt16 = 0
  /// @14: the phase tag in bit 0, then the status.
  public var status: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("result", &result)
    visitor.padding(4)
    visitor.integer("sq_head", &head)
    visitor.integer("sq_id", &queue)
    visitor.integer("command_id", &identifier)
    visitor.integer("status", &status)
  }
}

/// Opcodes of the admin queue.
public enum NVMeAdminOpcode: UInt8, Sendable {
  case deleteSubmissionQueue = 0x00
  case createSubmissionQueue = 0x01
  case getLogPage = 0x02
  case deleteCompletionQueue = 0x04
  case createCompletionQueue = 0x05
  case identify = 0x06
  case abort = 0x08
  case setFeatures = 0x09
  case getFeatures = 0x0A
  case asynchronousEvent = 0x0C
}

/// Opcodes of the NVM command set.
public enum NVMeOpcode: UInt8, Sendable {
  case flush = 0x00
  case write = 0x01
  case read = 0x02
  case writeZeroes = 0x08
  case datasetManagement = 0x09
}

extension NVMeCommand {
  @inlinable
  public init(_ opcode: NVMeOpcode, namespace: UInt32) {
    self.opcode = opcode.rawValue
    self.namespace = namespace
  }

  public init(_ opcode: NVMeAdminOpcode) { self.opcode = opcode.rawValue }

  // MARK: - The NVM command set

  /// Reads, writes or zeroes blocks.
  ///
  /// - Parameters:
  ///   - count: of blocks, 1 to 65536.
  ///   - forced: it is on stable storage before it completes (FUA).
  @inlinable
  public init(
    _ opcode: NVMeOpcode, namespace: UInt32, block: UInt64, count: Int, forced: Bool = false
  ) {
    self.init(opcode, namespace: namespace)
    word10 = UInt32(truncatingIfNeeded: block)
    word11 = UInt32(truncatingIfNeeded: block >> 32)
    word12 = UInt32(truncatingIfNeeded: count &- 1) & 0xFFFF | (forced ? 1 << 30 : 0)
  }

  /// The blocks that a read or write is about.
  @inlinable public var block: UInt64 { UInt64(word11) << 32 | UInt64(word10) }
  @inlinable public var blockCount: Int { Int(word12 & 0xFFFF) &+ 1 }
  @inlinable public var isForced: Bool { word12 >> 30 & 1 != 0 }
  /// Of a write of zeros: the storage may be given back (DEAC).
  @inlinable public var mayDeallocate: Bool {
    get { word12 >> 25 & 1 != 0 }
    set { word12 = word12 & ~(1 << 25) | (newValue ? 1 << 25 : 0) }
  }

  /// Gives blocks back; the data are `NVMeRange`s.
  ///
  /// - Parameter rangeCount: 1 to 256.
  @inlinable
  public static func deallocate(namespace: UInt32, rangeCount: Int) -> NVMeCommand {
    var command = NVMeCommand(.datasetManagement, namespace: namespace)
    command.word10 = UInt32(truncatingIfNeeded: rangeCount &- 1) & 0xFF
    command.word11 = 1 << 2
    return command
  }

  // MARK: - The admin queue

  /// - Parameter subject: CNS: 0 for a namespace, 1 for the controller, 2 for the list of namespaces.
  public static func identify(_ subject: UInt8, namespace: UInt32 = 0) -> NVMeCommand {
    var command = NVMeCommand(.identify)
    command.namespace = namespace
    command.word10 = UInt32(subject)
    return command
  }

  public static func setFeature(_ feature: NVMeFeature, _ value: UInt32) -> NVMeCommand {
    var command = NVMeCommand(.setFeatures)
    command.word10 = UInt32(feature.rawValue)
    command.word11 = value
    return command
  }

  /// - Parameters:
  ///   - entries: 2 to 65536.
  ///   - vector: of its interrupt; nil for none.
  public static func createCompletionQueue(
    _ queue: UInt16, address: UInt64, entries: Int, vector: UInt16?
  ) -> NVMeCommand {
    var command = NVMeCommand(.createCompletionQueue)
    command.data1 = address
    command.word10 = UInt32(truncatingIfNeeded: entries &- 1) << 16 | UInt32(queue)
    // Physically contiguous; interrupts enabled.
    command.word11 = 1 | (vector.map { UInt32($0) << 16 | 2 } ?? 0)
    return command
  }

  public static func createSubmissionQueue(
    _ queue: UInt16, address: UInt64, entries: Int, completionQueue: UInt16
  ) -> NVMeCommand {
    var command = NVMeCommand(.createSubmissionQueue)
    command.data1 = address
    command.word10 = UInt32(truncatingIfNeeded: entries &- 1) << 16 | UInt32(queue)
    command.word11 = UInt32(completionQueue) << 16 | 1
    return command
  }

  /// - Parameter byteCount: a multiple of 4, to 4096.
  public static func logPage(_ page: UInt8, byteCount: Int) -> NVMeCommand {
    var command = NVMeCommand(.getLogPage)
    command.namespace = .max
    command.word10 = UInt32(page) | UInt32(truncatingIfNeeded: byteCount / 4 &- 1) << 16
    return command
  }

  public static func abort(_ identifier: UInt16, of queue: UInt16) -> NVMeCommand {
    var command = NVMeCommand(.abort)
    command.word10 = UInt32(identifier) << 16 | UInt32(queue)
    return command
  }
}

public struct NVMeFeature: WireInteger {
  public var rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let writeCache = NVMeFeature(rawValue: 0x06)
  /// The value is the number of submission queues less one, and of completion queues in the high half.
  public static let queueCount = NVMeFeature(rawValue: 0x07)
  /// Bit 8 asks to be told of changed namespaces.
  public static let asynchronousEvents = NVMeFeature(rawValue: 0x0B)
}

/// What the controller tells unasked: the result of an asynchronous event command.
public struct NVMeEvent: WireInteger, CustomStringConvertible {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// 0: an error, 1: health, 2: a notice.
  public var type: UInt8 { UInt8(rawValue & 7) }
  public var information: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }
  /// It is to be read, or the event is not told again.
  public var logPage: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 16) }

  public static let namespaceChanged = NVMeEvent(rawValue: 2 | 0 << 8 | 4 << 16)
  public var isNamespaceChange: Bool { type == 2 && information == 0 }

  public var description: String {
    isNamespaceChange ? "namespaces changed" : "event type \(type), information \(information)"
  }
}

/// Blocks that a dataset management command gives back.
public struct NVMeRange: WireLayout, Equatable {
  public static let name: WireName = "NVMe range"
  @inlinable public static var byteCount: Int { 16 }

  /// @0
  public var attributes: UInt32 = 0
  /// @4
  public var blockCount: UInt32 = 0
  /// @8
  public var block: UInt64 = 0

  public init() {}
  public init(block: UInt64, blockCount: UInt32) {
    self.block = block
    self.blockCount = blockCount
  }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("attributes", &attributes)
    visitor.integer("block_count", &blockCount)
    visitor.integer("block", &block)
  }
}
