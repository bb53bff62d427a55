// SPDX-License-Identifier: Apache-2.0

public import StorageProtocol

extension StorageFault {
  /// What `init(_:)` reads, for help texts.
  public static let syntax = """
    busy, queue-full, medium, sense=KEY/CODE/QUALIFIER or srb=STATUS (hexadecimal), overstate=BYTES, hold, \
    with :after=N :count=N :blocks=FIRST-LAST :commands=read+write+flush+unmap+other
    """

  /// Reads `FAULT[:after=N][:count=N][:blocks=FIRST-LAST][:commands=KIND+...]`; nil for other text.
  ///
  /// FAULT is `busy` or `queue-full` (SCSI status), `medium` (an error of the medium at the
  /// blocks), `sense=3/11/0` (key, code and qualifier in hexadecimal), `srb=05` (the SRB status)
  /// `overstate=N` (the completion claims so many bytes more than were moved) or `hold` (no answer
  /// until the bus is reset). Unless told otherwise it happens once.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard let first = parts.first, let outcome = Outcome(first) else { return nil }
    self.init(outcome, count: 1)
    if first == "medium" { commands = [.read, .write] }
    for part in parts.dropFirst() {
      let pair = part.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2, set(pair[0], pair[1]) else { return nil }
    }
  }

  private mutating func set(_ key: Substring, _ value: Substring) -> Bool {
    switch key {
    case "after", "count":
      guard let number = Int(value), 0...1_000_000_000 ~= number else { return false }
      if key == "after" { after = number } else { count = number }
    case "blocks":
      let ends = value.split(separator: "-", omittingEmptySubsequences: false)
      guard 1...2 ~= ends.count, let low = ends.first.flatMap({ UInt64($0) }),
        let high = ends.last.flatMap({ UInt64($0) }), low <= high
      else { return false }
      blocks = low...high
    case "commands":
      let kinds: [Substring: Commands] = [
        "read": .read, "write": .write, "flush": .flush, "unmap": .unmap, "other": .other,
      ]
      commands = []
      for name in value.split(separator: "+", omittingEmptySubsequences: false) {
        guard let kind = kinds[name] else { return false }
        commands.insert(kind)
      }
    default: return false
    }
    return true
  }
}

extension StorageFault.Outcome {
  fileprivate init?(_ text: Substring) {
    let pair = text.split(separator: "=", omittingEmptySubsequences: false)
    guard let name = pair.first, pair.count <= 2 else { return nil }
    let value = pair.count == 2 ? pair[1] : nil
    switch (name, value) {
    case ("busy", nil): self = .device(.busy)
    case ("queue-full", nil): self = .device(.queueFull)
    case ("hold", nil): self = .hold
    case ("medium", nil): self = .sense(.unrecoveredRead)
    case ("sense", let value?):
      let numbers = value.split(separator: "/", omittingEmptySubsequences: false)
        .map { UInt8($0, radix: 16) }
      guard numbers.count == 3, let key = numbers[0], key < 16, let code = numbers[1],
        let qualifier = numbers[2]
      else { return nil }
      self = .sense(
        SCSISense(key: SCSISenseKey(rawValue: key), code: code, qualifier: qualifier))
    case ("srb", let value?):
      // Flags are not statuses.
      guard let status = UInt8(value, radix: 16), status < 0x40 else { return nil }
      self = .request(SRBStatus(rawValue: status))
    case ("overstate", let value?):
      guard let count = UInt32(value) else { return nil }
      self = .overstate(count)
    default: return nil
    }
  }
}

extension StorageVersion {
  /// Reads `6.2` and the like; nil for a version that nobody speaks.
  public init?(_ text: some StringProtocol) {
    let all: [StorageVersion] = [.windowsVista, .windows7, .windows8, .windows81, .windows10]
    guard let version = all.first(where: { $0.description == text }) else { return nil }
    self = version
  }
}
