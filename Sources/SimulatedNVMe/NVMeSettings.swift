// SPDX-License-Identifier: Apache-2.0

public import NVMeProtocol

/// What a simulated controller is, and what it does wrong.
public struct NVMeSettings: Sendable {
  public var serial = "VSC0001"
  /// Queue pairs beside the admin queue that it grants, 1 to 64.
  public var queueCount = 16
  /// Interrupt vectors, 1 to 64.
  public var vectorCount = 16
  /// A transfer has at most 2 to the power of this of 4096 bytes; 0 for no limit.
  public var maximumTransferPower: UInt8 = 8
  /// CAP.TO: time to become ready.
  public var readyHalfSeconds: UInt8 = 10
  /// SGLs are understood: one data block, in the command itself.
  public var takesDescriptors = true
  public var faults: [NVMeFault] = []
  /// It never becomes ready.
  public var neverReady = false
  /// Aborts are answered with "not aborted".
  public var refusesAborts = false
  /// Does at random what no controller may do; the same for the same seed.
  public var hostileSeed: UInt64?

  public init() {}
}

/// What is done wrong with commands of the I/O queues.
public struct NVMeFault: Sendable, Equatable {
  public enum Kind: Sendable, Equatable {
    /// Never answered, unless it is aborted.
    case hold
    /// Never answered at all.
    case drop
    /// Executed and completed twice.
    case twice
    /// Completed, and another command that was never sent too.
    case invent
    /// Completed in the name of another queue, then rightly.
    case wrongQueue
    /// Not executed.
    case status(NVMeCondition)
    /// The controller fails, and needs a reset.
    case fail
  }

  public var kind: Kind
  /// Commands before the first that it meets, and how many it meets.
  public var after: Int
  public var count: Int

  public init(_ kind: Kind, after: Int = 0, count: Int = 1) {
    self.kind = kind
    self.after = after
    self.count = count
  }

  /// "hold", "drop", "twice", "invent", "wrong-queue", "fail" or "status=HEX", with `:after=N` and
  /// `:count=N`.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    switch parts[0] {
    case "hold": kind = .hold
    case "drop": kind = .drop
    case "twice": kind = .twice
    case "invent": kind = .invent
    case "wrong-queue": kind = .wrongQueue
    case "fail": kind = .fail
    default:
      guard parts[0].hasPrefix("status="), let value = UInt16(parts[0].dropFirst(7), radix: 16),
        value < 0x800
      else { return nil }
      kind = .status(NVMeCondition(rawValue: value))
    }
    (after, count) = (0, 1)
    for option in parts.dropFirst() {
      if option.hasPrefix("after="), let number = Int(option.dropFirst(6)), number >= 0 {
        after = number
      } else if option.hasPrefix("count="), let number = Int(option.dropFirst(6)), number > 0 {
        count = number
      } else {
        return nil
      }
    }
  }

  public static var syntax: String {
    "hold, drop, twice, invent, wrong-queue, fail or status=HEX, with :after=N :count=N"
  }
}

extension NVMeDevice {
  /// The fault that meets the next command, if there is one.
  func takeFault() -> NVMeFault.Kind? {
    for index in faults.indices {
      if faults[index].after > 0 {
        faults[index].after -= 1
      } else if faults[index].count > 0 {
        faults[index].count -= 1
        return faults[index].kind
      }
    }
    return nil
  }

  /// Returns whether the command is dealt with.
  func perform(_ fault: NVMeFault.Kind, _ command: NVMeCommand, _ number: Int) -> Bool {
    let identifier = command.identifier
    switch fault {
    case .hold:
      held.append((number, identifier))
      return true
    case .drop: return true
    case .status(let condition):
      complete(identifier, number, condition)
      return true
    case .fail:
      fail()
      return true
    case .twice:
      guard case .done(let condition, let result) = move(command) else { return true }
      complete(identifier, number, condition, result: result)
      complete(identifier, number, condition, result: result)
      return true
    case .invent:
      complete(identifier ^ 0x5A5A, number, .success)
      return false
    case .wrongQueue:
      complete(identifier, number, .success, queueNumber: UInt16(number) &+ 1)
      return false
    }
  }
}
