// SPDX-License-Identifier: Apache-2.0

import Glibc

/// The network stack's side of an interface: a socket that sends and receives whole frames.
final class RawInterface: Sendable {
  private let descriptor: Int32

  init?(_ name: String) {
    // ETH_P_ALL, most significant byte first.
    descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue), Int32(UInt16(3).bigEndian))
    guard descriptor >= 0 else { return nil }
    // struct sockaddr_ll: family, protocol, interface, and what a binding does not look at.
    let index = unsafe if_nametoindex(name)
    var address = [UInt8](repeating: 0, count: 20)
    unsafe address.withUnsafeMutableBytes { bytes in
      unsafe bytes.storeBytes(of: UInt16(AF_PACKET), as: UInt16.self)
      unsafe bytes.storeBytes(of: UInt16(3).bigEndian, toByteOffset: 2, as: UInt16.self)
      unsafe bytes.storeBytes(of: index, toByteOffset: 4, as: UInt32.self)
    }
    let bound = unsafe address.withUnsafeBytes { bytes in
      unsafe bind(
        descriptor, bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self),
        socklen_t(bytes.count))
    }
    guard bound == 0 else {
      close(descriptor)
      return nil
    }
  }

  deinit { close(descriptor) }

  func send(_ frame: [UInt8]) -> Bool {
    unsafe Glibc.send(descriptor, frame, frame.count, 0) == frame.count
  }

  /// Waits until a frame comes that begins as asked for; nil when ten seconds bring none.
  func receive(beginning: [UInt8]) -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: 70000)
    for _ in 0..<1000 {
      var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&waiting, 1, 10_000) == 1 else { return nil }
      let count = unsafe recv(descriptor, &buffer, buffer.count, 0)
      guard count > 0 else { return nil }
      let frame = [UInt8](buffer.prefix(count))
      if frame.starts(with: beginning) { return frame }
    }
    return nil
  }
}

/// Waits for a descriptor to be readable, ten seconds at most.
func waitForInput(_ descriptor: Int32) -> Bool {
  var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return unsafe poll(&waiting, 1, 10_000) == 1
}

func interfaceExists(_ name: String) -> Bool { unsafe if_nametoindex(name) != 0 }
