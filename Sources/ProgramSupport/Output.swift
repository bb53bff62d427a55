// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// A value as JSON for people and programs: indented, keys sorted.
public func jsonText(_ value: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  return String(decoding: try encoder.encode(value), as: UTF8.self)
}

public func spaces(_ count: Int) -> String { String(repeating: " ", count: max(count, 0)) }

/// Rows as aligned columns, two spaces apart.
public func table(_ rows: [[String]]) -> String {
  let columns = rows.map(\.count).max() ?? 0
  let widths = (0..<columns).map { column in
    rows.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0
  }
  return rows.map { row in
    var line = ""
    for (column, cell) in row.enumerated() {
      line += column == row.count - 1 ? cell : cell + spaces(widths[column] - cell.count + 2)
    }
    return line
  }.joined(separator: "\n")
}
