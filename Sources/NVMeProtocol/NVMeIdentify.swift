// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// What a controller says of itself: the first bytes of the 4096 (NVMe Base 1.4, 5.15.2.2).
public struct NVMeControllerData: WireLayout, Equatable {
  public static let name: WireName = "NVMe controller"
  public static let byteCount = 540

  /// @0
  public var vendor: UInt16 = 0
  /// @4, 24, 64: ASCII, filled up with spaces.
  public var serial = TextBytes<20>()
  public var model = TextBytes<40>()
  public var firmware = TextBytes<8>()
  /// @77: a transfer has at most 2 to the power of this of the smallest pages; 0 for no limit.
  public var maximumTransfer: UInt8 = 0
  /// @78
  public var controller: UInt16 = 0
  /// @80
  public var version = NVMeVersion(rawValue: 0)
  /// @92: bit 8: tells of changed namespaces.
  public var optionalEvents: UInt32 = 0
  /// @258: aborts at one time, less one.
  public var abortLimit: UInt8 = 0
  /// @259: event commands at one time, less one.
  public var eventLimit: UInt8 = 0
  /// @512, 513: the smallest entry as a power of two in the low half, the largest in the high half.
  public var submissionEntrySizes: UInt8 = 0
  public var completionEntrySizes: UInt8 = 0
  /// @516: the highest namespace id.
  public var namespaceCount: UInt32 = 0
  /// @520: bit 2: dataset management, bit 3: write zeroes.
  public var optionalCommands: UInt16 = 0
  /// @525: bit 0: there is a cache that loses its content with the power.
  public var writeCache: UInt8 = 0
  /// @536: bits 1 and 0: 1 where SGLs are understood, 2 where they must begin and end at words.
  public var scatterGather: UInt32 = 0

  public init() {}

  public var hasDatasetManagement: Bool { optionalCommands >> 2 & 1 != 0 }
  public var hasWriteZeroes: Bool { optionalCommands >> 3 & 1 != 0 }
  public var takesDescriptors: Bool { 1...2 ~= scatterGather & 3 }
  public var hasWriteCache: Bool { writeCache & 1 != 0 }
  public var tellsOfNamespaces: Bool { optionalEvents >> 8 & 1 != 0 }
  public var takesEntries: Bool {
    submissionEntrySizes & 0xF <= 6 && submissionEntrySizes >> 4 >= 6
      && completionEntrySizes & 0xF <= 4 && completionEntrySizes >> 4 >= 4
  }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("vendor", &vendor)
    visitor.padding(2)
    visitor.bytes("serial", &serial.bytes)
    visitor.bytes("model", &model.bytes)
    visitor.bytes("firmware", &firmware.bytes)
    visitor.padding(5)
    visitor.integer("mdts", &maximumTransfer)
    visitor.integer("controller", &controller)
    visitor.integer("version", &version)
    visitor.padding(8)
    visitor.integer("oaes", &optionalEvents)
    visitor.padding(162)
    visitor.integer("acl", &abortLimit)
    visitor.integer("aerl", &eventLimit)
    visitor.padding(252)
    visitor.integer("sqes", &submissionEntrySizes)
    visitor.integer("cqes", &completionEntrySizes)
    visitor.padding(2)
    visitor.integer("namespace_count", &namespaceCount)
    visitor.integer("oncs", &optionalCommands)
    visitor.padding(3)
    visitor.integer("vwc", &writeCache)
    visitor.padding(10)
    visitor.integer("sgls", &scatterGather)
  }
}

/// What a namespace is: the first bytes of the 4096 (NVMe Base 1.4, 5.15.2.1).
public struct NVMeNamespaceData: WireLayout, Equatable {
  public static let name: WireName = "NVMe namespace"
  public static let byteCount = 192

  /// @0, 8, 16: blocks.
  public var size: UInt64 = 0
  public var capacity: UInt64 = 0
  public var used: UInt64 = 0
  /// @24: bit 0: thin; bit 4: the numbers from @64 on say something.
  public var features: UInt8 = 0
  /// @25: formats, less one.
  public var formatCount: UInt8 = 0
  /// @26: the format in use: bits 3 to 0, and 6 and 5 above them. Bit 4: metadata lies behind each
  /// block's data.
  public var format: UInt8 = 0
  /// @29: bits 2 to 0: end-to-end protection is on.
  public var protection: UInt8 = 0
  /// @33: bits 2 to 0 are 1: what was given back reads as zeros. Bit 3: a write of zeros may give back.
  public var deallocation: UInt8 = 0
  /// @46: blocks of a request that suits it best; 0 for nothing said.
  public var optimalBoundary: UInt16 = 0
  /// @64: blocks that are written at once, less one.
  public var writeGranularity: UInt16 = 0
  /// @68: blocks that are given back together, less one.
  public var deallocationGranularity: UInt16 = 0
  /// @99: bit 0: write-protected.
  public var attributes: UInt8 = 0
  /// @128: 16 formats of 4 bytes: metadata bytes (2), block size as a power of two, performance.
  public var formats = InlineArray<64, UInt8>(repeating: 0)

  public init() {}

  public static func == (left: Self, right: Self) -> Bool { left.wireBytes == right.wireBytes }

  /// The format in use.
  public var formatIndex: Int { Int(format & 0xF) | Int(format >> 5 & 3) << 4 }
  /// Bytes of metadata of each block, and the block size as a power of two; nil for a format that is not
  /// among those which are told here.
  public var blockFormat: (metadata: UInt16, power: UInt8)? {
    let index = formatIndex
    guard index < 16, index <= Int(formatCount) else { return nil }
    return (
      UInt16(formats[4 * index]) | UInt16(formats[4 * index + 1]) << 8, formats[4 * index + 2]
    )
  }
  public var isThin: Bool { features & 1 != 0 }
  public var hasGranularities: Bool { features >> 4 & 1 != 0 }
  public var readsZeros: Bool { deallocation & 7 == 1 }
  public var zeroesByDeallocation: Bool { deallocation >> 3 & 1 != 0 }
  public var isWriteProtected: Bool { attributes & 1 != 0 }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("nsze", &size)
    visitor.integer("ncap", &capacity)
    visitor.integer("nuse", &used)
    visitor.integer("nsfeat", &features)
    visitor.integer("nlbaf", &formatCount)
    visitor.integer("flbas", &format)
    visitor.padding(2)
    visitor.integer("dps", &protection)
    visitor.padding(3)
    visitor.integer("dlfeat", &deallocation)
    visitor.padding(12)
    visitor.integer("noiob", &optimalBoundary)
    visitor.padding(16)
    visitor.integer("npwg", &writeGranularity)
    visitor.padding(2)
    visitor.integer("npdg", &deallocationGranularity)
    visitor.padding(29)
    visitor.integer("nsattr", &attributes)
    visitor.padding(28)
    visitor.bytes("formats", &formats)
  }
}

/// Text of a fixed length, filled up with spaces.
public struct TextBytes<let count: Int>: Sendable, Equatable {
  public var bytes = InlineArray<count, UInt8>(repeating: 0x20)

  public init() {}

  /// - Parameter text: what does not fit is left out, and what is no printable ASCII is a `?`.
  public init(_ text: String) {
    for (index, byte) in text.utf8.prefix(count).enumerated() {
      bytes[index] = 0x20..<0x7F ~= byte ? byte : 0x3F
    }
  }

  public static func == (left: Self, right: Self) -> Bool { left.text == right.text }

  /// Without the spaces at its ends; a peer's bytes that can't be printed are `?`.
  public var text: String {
    var characters: [UInt8] = []
    for index in bytes.indices {
      characters.append(
        0x20..<0x7F ~= bytes[index] ? bytes[index] : bytes[index] == 0 ? 0x20 : 0x3F)
    }
    while characters.last == 0x20 { characters.removeLast() }
    return String(decoding: characters.drop { $0 == 0x20 }, as: UTF8.self)
  }
}
