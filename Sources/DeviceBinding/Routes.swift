// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus

/// Where packets go, as the kernel's main table says.
struct Routes {
  struct Route: Equatable {
    /// 4 or 16 bytes, in the network's order.
    var destination: [UInt8]
    var prefix: Int
    var interface: String
  }

  private(set) var all: [Route] = []

  /// - Parameter network: `/proc/self/net`.
  init(_ network: SysfsDirectory) throws(DiscoveryError) {
    all = Self.version4(try network.textIfPresent("route", limit: 1 << 20) ?? "")
    all += Self.version6(try network.textIfPresent("ipv6_route", limit: 1 << 20) ?? "")
  }

  /// The interfaces of routes to everywhere.
  var defaults: Set<String> { Set(all.filter { $0.prefix == 0 }.map(\.interface)) }

  /// The interface by which an address is reached.
  func interface(to address: [UInt8]) -> String? {
    all.filter { $0.destination.count == address.count && $0.covers(address) }
      .max { $0.prefix < $1.prefix }?.interface
  }

  private static let isUp: UInt32 = 1
  private static let isRejecting: UInt32 = 0x200

  /// Interface, destination, gateway, flags, three numbers, mask: words in hexadecimal, in the processor's
  /// byte order.
  private static func version4(_ text: String) -> [Route] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
      guard words.count > 7, let destination = UInt32(words[1], radix: 16),
        let flags = UInt32(words[3], radix: 16), let mask = UInt32(words[7], radix: 16),
        flags & isUp != 0, flags & isRejecting == 0
      else { return nil }
      return Route(
        destination: addressBytes(destination), prefix: mask.nonzeroBitCount,
        interface: String(words[0]))
    }
  }

  /// Destination, its length, source, its length, next hop, three numbers, flags, interface.
  private static func version6(_ text: String) -> [Route] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      guard words.count == 10, let destination = hexadecimalBytes(words[0]),
        destination.count == 16, let prefix = Int(words[1], radix: 16), 0...128 ~= prefix,
        let flags = UInt32(words[8], radix: 16), flags & isUp != 0, flags & isRejecting == 0
      else { return nil }
      return Route(destination: destination, prefix: prefix, interface: String(words[9]))
    }
  }
}

extension Routes.Route {
  func covers(_ address: [UInt8]) -> Bool {
    let (whole, rest) = (prefix / 8, prefix % 8)
    guard destination.prefix(whole) == address.prefix(whole) else { return false }
    guard rest > 0, destination.indices.contains(whole), address.indices.contains(whole) else {
      return true
    }
    return (destination[whole] ^ address[whole]) >> UInt8(8 - rest) == 0
  }
}

/// The address that a word of the kernel's lists is: its bytes as they lie in memory, where the lowest one
/// comes first.
func addressBytes(_ word: UInt32) -> [UInt8] {
  [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: word >> $0) }
}

func hexadecimalBytes(_ text: some StringProtocol) -> [UInt8]? {
  let digits = text.compactMap(\.hexDigitValue)
  guard digits.count == text.count, digits.count % 2 == 0 else { return nil }
  return stride(from: 0, to: digits.count, by: 2).map {
    UInt8(digits[$0] << 4 | digits[$0 + 1])
  }
}
