// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser

/// A number of bytes as people write it: 4096, 4K, 1M.
public struct ByteCount: ExpressibleByArgument, Sendable {
  public let bytes: UInt64

  public init(bytes: UInt64) { self.bytes = bytes }

  public init?(argument: String) {
    let units: [Character: UInt64] = [
      "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50,
    ]
    let unit = argument.last.flatMap { units[Character($0.lowercased())] }
    guard let number = UInt64(unit == nil ? argument : String(argument.dropLast())) else {
      return nil
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
    guard !overflow, bytes <= UInt64(Int64.max) else { return nil }
    self.bytes = bytes
  }

  public var defaultValueDescription: String { "\(bytes)" }
}

/// Bytes for people: 1.5 MiB.
public func humanBytes(_ bytes: Double) -> String {
  var (value, unit) = (bytes, 0)
  let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  while value >= 1024, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  return
    "\(decimal(value, value < 10 && unit > 0 ? 2 : value < 100 && unit > 0 ? 1 : 0)) \(units[unit])"
}

/// A number with so many digits behind the point.
public func decimal(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "-" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = Int64((abs(value) * scale).rounded())
  let sign = value < 0 && scaled > 0 ? "-" : ""
  guard digits > 0 else { return "\(sign)\(scaled)" }
  let fraction = String(scaled % Int64(scale))
  let zeros = String(repeating: "0", count: digits - fraction.count)
  return "\(sign)\(scaled / Int64(scale)).\(zeros)\(fraction)"
}
