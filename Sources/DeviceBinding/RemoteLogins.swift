// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus

/// Who is logged in over SSH: from which addresses.
struct RemoteLogins {
  private(set) var peers: [[UInt8]] = []

  /// - Parameters:
  ///   - network: `/proc/self/net`.
  ///   - connection: of the operator's own session: what `SSH_CONNECTION` says. sudo takes it away.
  init(_ network: SysfsDirectory, connection: String?) throws(DiscoveryError) {
    // Client, its port, this machine, its port.
    let own = connection?.split(separator: " ").last.flatMap { UInt16($0) }
    let ports = [22] + (own.map { [$0] } ?? [])
    for list in ["tcp", "tcp6"] {
      let text = try network.textIfPresent(list, limit: 1 << 22) ?? ""
      for line in text.split(separator: "\n") {
        guard let peer = Self.peer(line, ports), !peers.contains(peer) else { continue }
        peers.append(peer)
      }
    }
  }

  /// Whoever is at the other end of an established connection to one of the ports. A line is
  /// `0: 0100007F:0016 0200007F:C350 01 ...`: number, this end, the other end, state.
  private static func peer(_ line: Substring, _ ports: [UInt16]) -> [UInt8]? {
    let words = line.split(separator: " ")
    guard words.count > 3, words[3] == "01", let own = end(words[1]), let other = end(words[2]),
      ports.contains(own.port)
    else { return nil }
    return isLoopback(other.address) ? nil : other.address
  }

  private static func isLoopback(_ address: [UInt8]) -> Bool {
    address.count == 4 ? address.first == 127 : address == [UInt8](repeating: 0, count: 15) + [1]
  }

  private static func end(_ text: Substring) -> (address: [UInt8], port: UInt16)? {
    let parts = text.split(separator: ":")
    guard parts.count == 2, let port = UInt16(parts[1], radix: 16), parts[0].count % 8 == 0 else {
      return nil
    }
    var address: [UInt8] = []
    var rest = parts[0]
    while !rest.isEmpty {
      guard let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
      address += addressBytes(word)
      rest = rest.dropFirst(8)
    }
    // A socket for both versions has the old ones in ::ffff:0:0/96.
    let isVersion4 = address.count == 16 && address.prefix(12) == mapped[...]
    return (isVersion4 ? Array(address.suffix(4)) : address, port)
  }

  private static let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]

  /// An address for people.
  static func text(_ address: [UInt8]) -> String {
    guard address.count == 16 else { return address.map(String.init).joined(separator: ".") }
    return stride(from: 0, to: 16, by: 2).map {
      String(UInt16(address[$0]) << 8 | UInt16(address[$0 + 1]), radix: 16)
    }.joined(separator: ":")
  }
}
