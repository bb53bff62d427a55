// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// Where the registers lie in BAR 0 (NVMe Base 1.4, 3.1).
public enum NVMeRegister {
  public static let capabilities = 0x00
  public static let version = 0x08
  public static let configuration = 0x14
  public static let status = 0x1C
  public static let adminQueueAttributes = 0x24
  public static let adminSubmissionQueue = 0x28
  public static let adminCompletionQueue = 0x30
  public static let doorbells = 0x1000

  /// The doorbell of a submission queue's tail.
  ///
  /// - Parameter stride: `NVMeCapabilities.doorbellStride`.
  public static func tail(_ queue: UInt16, stride: Int) -> Int {
    doorbells + 2 * Int(queue) * stride
  }

  /// The doorbell of a completion queue's head.
  public static func head(_ queue: UInt16, stride: Int) -> Int {
    doorbells + (2 * Int(queue) + 1) * stride
  }
}

/// CAP.
public struct NVMeCapabilities: WireInteger {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Entries of the largest queue, 1 to 65536.
  public var maximumEntries: Int { Int(rawValue & 0xFFFF) + 1 }
  /// Nanoseconds that the controller has to become ready, or to stop being so: at least half a second,
  /// since a controller that says 0 still needs a moment.
  public var timeout: UInt64 { max(rawValue >> 24 & 0xFF, 1) * 500_000_000 }
  /// Bytes from one doorbell to the next.
  public var doorbellStride: Int { 4 << Int(rawValue >> 32 & 0xF) }
  /// It knows the NVM command set.
  public var hasNVMCommands: Bool { rawValue >> 37 & 1 != 0 }
  /// Bytes of the smallest memory page that it can be told to use, a power of two from 4096 on.
  public var minimumPageByteCount: Int { 4096 << Int(rawValue >> 48 & 0xF) }
}

/// CC.
public struct NVMeConfiguration: WireInteger {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let off = NVMeConfiguration(rawValue: 0)
  /// Enabled: NVM commands, pages of 4096 bytes, round robin, entries of 64 and of 16 bytes.
  public static let on = NVMeConfiguration(rawValue: 1 | 6 << 16 | 4 << 20)

  public var isEnabled: Bool { rawValue & 1 != 0 }
  /// 1 asks for a normal shutdown, 2 for an abrupt one.
  public var shutdown: UInt8 {
    get { UInt8(rawValue >> 14 & 3) }
    set { rawValue = rawValue & ~(3 << 14) | UInt32(newValue & 3) << 14 }
  }
  public var commandSet: UInt8 { UInt8(rawValue >> 4 & 7) }
  public var pageSize: UInt8 { UInt8(rawValue >> 7 & 0xF) }
  public var submissionEntrySize: UInt8 { UInt8(rawValue >> 16 & 0xF) }
  public var completionEntrySize: UInt8 { UInt8(rawValue >> 20 & 0xF) }
}

/// CSTS.
public struct NVMeControllerStatus: WireInteger {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let ready = NVMeControllerStatus(rawValue: 1)
  public static let failed = NVMeControllerStatus(rawValue: 2)
  public static let shutDown = NVMeControllerStatus(rawValue: 2 << 2)

  /// All ones are what a function reads as that is not there any more.
  public var isGone: Bool { rawValue == .max }
  public var isReady: Bool { rawValue & 1 != 0 && !isGone }
  /// Controller fatal status: only a reset helps.
  public var hasFailed: Bool { rawValue & 2 != 0 && !isGone }
  /// A controller in use that fails, or is not ready any more: it answers nothing until it is started anew.
  public var needsReset: Bool { !isReady || hasFailed }
  public var isShutDown: Bool { rawValue >> 2 & 3 == 2 }
}

/// VS: 1.4 is 0x00010400.
public struct NVMeVersion: WireInteger, CustomStringConvertible {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public var description: String {
    let (major, minor, third) = (rawValue >> 16, rawValue >> 8 & 0xFF, rawValue & 0xFF)
    return "NVMe \(major).\(minor)" + (third == 0 ? "" : ".\(third)")
  }
}
