// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import SimulatedHost

/// `NIC:FAULT...`
struct NICFaultArgument: ExpressibleByArgument {
  enum Kind {
    /// Of the completions of the device.
    case channel(FaultPlan)
    case link(isUp: Bool)
    case networkChange
    case buffers(isExhausted: Bool)
    case virtualFunction(UInt32?)
    case flips(BitFlips?)
  }

  static let syntax = """
    link=down|up, buffers=exhausted|given, vf=SERIAL|none, network-change, \
    flip=SEED[:one-in=COUNT] or flip=none (a hostile host)
    """

  let device: Int
  let kind: Kind

  init?(argument: String) {
    let parts = argument.split(separator: ":", maxSplits: 1)
    guard parts.count == 2, let device = Int(parts[0]), device >= 0 else { return nil }
    self.device = device
    let text = String(parts[1])
    if let kind = Kind(text) {
      self.kind = kind
    } else if let plan = FaultPlan(text) {
      kind = .channel(plan)
    } else {
      return nil
    }
  }
}

extension NICFaultArgument.Kind {
  init?(_ text: String) {
    let parts = text.split(separator: ":").map(String.init)
    guard let first = parts.first else { return nil }
    let pair = first.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
    let value = pair.count == 2 ? pair[1] : nil
    switch (pair[0], value) {
    case ("link", "down"): self = .link(isUp: false)
    case ("link", "up"): self = .link(isUp: true)
    case ("network-change", nil): self = .networkChange
    case ("buffers", "exhausted"): self = .buffers(isExhausted: true)
    case ("buffers", "given"): self = .buffers(isExhausted: false)
    case ("vf", "none"): self = .virtualFunction(nil)
    case ("vf", let text?):
      guard let serial = UInt32(text) else { return nil }
      self = .virtualFunction(serial)
    case ("flip", "none"): self = .flips(nil)
    case ("flip", let text?):
      guard let seed = UInt64(text) else { return nil }
      var oneIn: UInt64 = 16
      for part in parts.dropFirst() {
        guard part.hasPrefix("one-in="), let count = UInt64(part.dropFirst("one-in=".count)),
          count > 0
        else { return nil }
        oneIn = count
      }
      self = .flips(BitFlips(seed: seed, oneIn: oneIn))
      return
    default: return nil
    }
    guard parts.count == 1 else { return nil }
  }
}
