// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedHost
import SimulatedLink
import VMBus

/// A guest that says what a test wants it to say, over a real socket.
struct RawGuest: ~Copyable {
  let socket: PacketSocket

  init(_ host: SimulatedHost) throws { socket = try PacketSocket(connectingTo: host.path) }

  /// Sends a call and returns the status of the answer, or nil when the host hung up.
  func call(_ bytes: [UInt8], descriptors: [Int32] = []) throws -> HypercallStatus? {
    try socket.send(bytes, descriptors: descriptors)
    guard let answer = try socket.receive() else { return nil }
    return try LinkAnswer(parsing: answer.bytes).status
  }

  func call(
    _ call: LinkCall, _ body: [UInt8] = [], descriptors: [Int32] = []
  ) throws -> HypercallStatus? {
    try self.call(LinkHeader(call).wireBytes + body, descriptors: descriptors)
  }
}
