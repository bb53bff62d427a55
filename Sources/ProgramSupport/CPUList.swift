// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser

/// Processor numbers as people write them: `0,2-3`.
public struct CPUList: ExpressibleByArgument, Sendable, Equatable {
  public let numbers: [Int]

  public init?(argument: String) {
    var numbers: [Int] = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
        first >= 0, first <= last, last < 4096
      else { return nil }
      numbers += first...last
    }
    guard Set(numbers).count == numbers.count else { return nil }
    self.numbers = numbers
  }
}
