// SPDX-License-Identifier: Apache-2.0

/// Takes a command's output and its status out of a console, between two marks that the guest's
/// first process writes: `^A TOKEN` and a line feed before, `^A TOKEN STATUS` and a line feed behind.
public struct FramedOutput: Sendable {
  private enum State {
    case before
    case within
    case over
  }

  private let mark: [UInt8]
  private var state = State.before
  /// What may be the beginning of a mark.
  private var held: [UInt8] = []
  /// The command's status, as soon as the second mark is there.
  public private(set) var status: Int32?

  /// - Parameter token: what nothing else on the console says.
  public init(token: String) { mark = [1] + Array(token.utf8) }

  /// Takes what came from the console, and returns what of it is the command's.
  public mutating func take(_ bytes: [UInt8]) -> [UInt8] {
    var output: [UInt8] = []
    held += bytes
    while state != .over {
      guard let start = held.firstIndex(of: 1) else {
        if state == .within { output += held }
        held = []
        break
      }
      if state == .within { output += held[..<start] }
      held.removeSubrange(..<start)
      // As far as it goes, is it the mark?
      guard held.starts(with: mark.prefix(held.count)) else {
        if state == .within { output.append(1) }
        held.removeFirst()
        continue
      }
      guard held.count > mark.count else { break }
      guard let end = held[mark.count...].firstIndex(where: { $0 == 0x0A || $0 == 0x0D }) else {
        break
      }
      finish(String(decoding: held[mark.count..<end], as: UTF8.self))
      held.removeSubrange(...end)
    }
    return output
  }

  private mutating func finish(_ text: String) {
    guard state == .within else {
      state = .within
      return
    }
    status = Int32(text.split(separator: " ").first ?? "") ?? -1
    state = .over
  }
}
