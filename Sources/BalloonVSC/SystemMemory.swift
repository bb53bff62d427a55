// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SystemPackage

/// What `/proc/meminfo` says of this machine's memory, in pages of 4096 bytes.
public struct SystemMemory: Sendable, Equatable {
  public var total: UInt64
  /// What could be had without swapping.
  public var available: UInt64
  /// What was promised to programs (Committed_AS).
  public var committed: UInt64

  public init(total: UInt64, available: UInt64, committed: UInt64) {
    self.total = total
    self.available = available
    self.committed = committed
  }

  /// - Parameter meminfo: the text of `/proc/meminfo`, whose numbers are KiB.
  public init?(meminfo: String) {
    var (total, available, committed): (UInt64?, UInt64?, UInt64?)
    for line in meminfo.split(separator: "\n") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      guard words.count >= 2, let kibibytes = UInt64(words[1]) else { continue }
      switch words[0] {
      case "MemTotal:": total = kibibytes / 4
      case "MemAvailable:": available = kibibytes / 4
      case "Committed_AS:": committed = kibibytes / 4
      default: break
      }
    }
    guard let total, let available, let committed else { return nil }
    self.init(total: total, available: available, committed: committed)
  }

  public static func now() throws(BalloonMemoryError) -> SystemMemory {
    guard let memory = SystemMemory(meminfo: try readFile("/proc/meminfo")) else {
      throw .unreadable("/proc/meminfo", .invalidArgument)
    }
    return memory
  }

  /// Pages that the balloon must leave to a machine of this size. The function of Linux's own
  /// driver: 16 MiB of 16, 72 of 128, 168 of 512, 360 of 2048, 744 of 8192, 1512 of 32768, and
  /// straight lines between these.
  public var defaultFloor: UInt64 {
    let mebibyte: UInt64 = 256
    return switch total / mebibyte {
    case ..<128: 8 * mebibyte + total / 2
    case ..<512: 40 * mebibyte + total / 4
    case ..<2048: 104 * mebibyte + total / 8
    case ..<8192: 232 * mebibyte + total / 16
    default: 488 * mebibyte + total / 32
    }
  }

  /// Whether private memory counts as committed even when it was mapped without a reservation.
  static var countsEveryMapping: Bool {
    (try? readFile("/proc/sys/vm/overcommit_memory"))?.first == "2"
  }
}

func readFile(_ path: String) throws(BalloonMemoryError) -> String {
  var buffer = [UInt8](repeating: 0, count: 8192)
  let count = unsafe vmbus_read_file(path, &buffer, buffer.count)
  guard count >= 0 else { throw .unreadable(path, Errno(rawValue: -count)) }
  return String(decoding: buffer.prefix(Int(count)), as: UTF8.self)
}

/// How much the operator lets the host take, in pages of 4096 bytes.
public struct BalloonLimits: Sendable, Equatable {
  /// Pages that must stay available to the system.
  public var floor: UInt64
  /// Pages that the balloon may hold at most.
  public var maximum: UInt64

  public init(floor: UInt64, maximum: UInt64) {
    self.floor = floor
    self.maximum = maximum
  }

  /// How many pages may be taken of those that the host asks for.
  ///
  /// - Parameter taken: pages that the balloon holds already.
  public func allowance(requested: UInt32, taken: UInt64, memory: SystemMemory) -> UInt64 {
    let spare = memory.available > floor ? memory.available - floor : 0
    let room = maximum > taken ? maximum - taken : 0
    let allowed = min(spare, room)
    guard allowed < requested else { return UInt64(requested) }
    // A partial answer keeps the 2 MiB in which hosts count.
    return allowed & ~511
  }
}
