// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The guest tells how much memory it needs; there is no answer. All counts are pages of 4096
/// bytes.
public struct BalloonStatusReport: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonStatusReport"
  public static let byteCount = 48
  public static let type = BalloonMessageType.statusReport

  public var header = BalloonHeader()
  public var available: UInt64 = 0
  /// The only number that Hyper-V's balancing is known to use. Ballooned pages count here too.
  public var committed: UInt64 = 0
  // What follows is peculiar to Windows; Linux sends zeros.
  public var pageFileSize: UInt64 = 0
  public var zeroAndFree: UInt64 = 0
  public var pageFileWrites: UInt32 = 0
  public var ioDifference: UInt32 = 0

  public init() {}

  public init(available: UInt64, committed: UInt64, transactionID: UInt32) {
    self = .blank(transactionID)
    self.available = available
    self.committed = committed
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("available", &available)
    visitor.integer("committed", &committed)
    visitor.integer("pageFileSize", &pageFileSize)
    visitor.integer("zeroAndFree", &zeroAndFree)
    visitor.integer("pageFileWrites", &pageFileWrites)
    visitor.integer("ioDifference", &ioDifference)
  }
}

/// The host asks for memory. The guest may give less.
public struct BalloonRequest: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonRequest"
  public static let byteCount = 16
  public static let type = BalloonMessageType.balloonRequest

  public var header = BalloonHeader()
  public var pageCount: UInt32 = 0

  public init() {}

  public init(pageCount: UInt32, transactionID: UInt32) {
    self = .blank(transactionID)
    self.pageCount = pageCount
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("pageCount", &pageCount)
    visitor.padding(4)
  }
}

/// The guest gives pages to the host, ranges behind it. No range and nothing more to come means
/// that the guest has no more to give.
public struct BalloonResponse: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonResponse"
  public static let byteCount = 16
  public static let type = BalloonMessageType.balloonResponse

  public var header = BalloonHeader()
  /// More to come in bit 0, the number of ranges above it.
  public var counts: UInt32 = 0

  public init() {}

  public init(rangeCount: Int, morePages: Bool, transactionID: UInt32) {
    self = .blank(transactionID)
    header.size = UInt16(
      truncatingIfNeeded: Self.byteCount + max(rangeCount, 0) * PageRange.byteCount)
    counts = UInt32(truncatingIfNeeded: rangeCount) << 1 | (morePages ? 1 : 0)
  }

  public var morePages: Bool { counts & 1 != 0 }
  public var rangeCount: UInt32 { counts >> 1 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.padding(4)
    visitor.integer("counts", &counts)
  }
}

/// The host gives pages back, ranges behind it.
public struct UnballoonRequest: BalloonMessage, Equatable {
  public static let name: WireName = "UnballoonRequest"
  public static let byteCount = 16
  public static let type = BalloonMessageType.unballoonRequest

  public var header = BalloonHeader()
  public var flags: UInt32 = 0
  public var rangeCount: UInt32 = 0

  public init() {}

  public init(rangeCount: Int, morePages: Bool, transactionID: UInt32) {
    self = .blank(transactionID)
    header.size = UInt16(
      truncatingIfNeeded: Self.byteCount + max(rangeCount, 0) * PageRange.byteCount)
    flags = morePages ? 1 : 0
    self.rangeCount = UInt32(truncatingIfNeeded: rangeCount)
  }

  /// The answer is due only after the message in which this is false.
  public var morePages: Bool { flags & 1 != 0 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("flags", &flags)
    visitor.integer("rangeCount", &rangeCount)
  }
}

/// The guest has taken the pages back: a header, and nothing else.
public struct UnballoonResponse: BalloonMessage, Equatable {
  public static let name: WireName = "UnballoonResponse"
  public static let byteCount = 8
  public static let type = BalloonMessageType.unballoonResponse

  public var header = BalloonHeader()

  public init() {}
  public init(transactionID: UInt32) { self = .blank(transactionID) }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
  }
}

/// The host has new memory for the guest. A second range, the region in which this one lies, may
/// follow.
public struct HotAddRequest: BalloonMessage, Equatable {
  public static let name: WireName = "HotAddRequest"
  public static let byteCount = 16
  public static let type = BalloonMessageType.hotAddRequest

  public var header = BalloonHeader()
  public var range = PageRange(rawValue: 0)

  public init() {}

  public init(_ range: PageRange, transactionID: UInt32) {
    self = .blank(transactionID)
    self.range = range
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("range", &range)
  }
}

/// How much of the new memory the guest took.
public struct HotAddResponse: BalloonMessage, Equatable {
  public static let name: WireName = "HotAddResponse"
  public static let byteCount = 16
  public static let type = BalloonMessageType.hotAddResponse

  public var header = BalloonHeader()
  public var pageCount: UInt32 = 0
  /// 1 for success, 0 for failure. No page with success means that the guest never will take any;
  /// no page with failure, that the host may try again.
  public var result: UInt32 = 0

  public init() {}

  public init(pageCount: UInt32, result: UInt32, transactionID: UInt32) {
    self = .blank(transactionID)
    self.pageCount = pageCount
    self.result = result
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("pageCount", &pageCount)
    visitor.integer("result", &result)
  }
}

/// The host tells something; the only kind that is known is the guest's maximum memory.
public struct BalloonInformation: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonInformation"
  public static let byteCount = 24
  public static let type = BalloonMessageType.information

  /// The kind whose data is a page count of 8 bytes.
  public static let maximumPageCount: UInt32 = 0

  public var header = BalloonHeader()
  /// Bytes behind this field.
  public var informationSize: UInt32 = 0
  public var kind: UInt32 = 0
  public var dataSize: UInt32 = 0

  public init() {}

  /// The message without its data, which is a page count.
  public init(maximumPageCountWithTransactionID transactionID: UInt32) {
    self = .blank(transactionID)
    header.size = UInt16(Self.byteCount + 8)
    informationSize = 16
    kind = Self.maximumPageCount
    dataSize = 8
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.padding(4)
    visitor.integer("informationSize", &informationSize)
    visitor.integer("kind", &kind)
    visitor.integer("dataSize", &dataSize)
  }
}
