// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import NetworkProtocol
import PacketIO
import SimulatedHost
import VMBus

/// `KIND[,option...]`: a network device and what it is joined to.
public struct NICArgument: ExpressibleByArgument {
  enum Kind: Equatable {
    /// All devices with one name share a switch.
    case hub(String)
    case loopback
    case generator(byteCount: Int)
    case sink
    case tap(String)
    case capture(String)
  }

  let kind: Kind
  private(set) var address: MACAddress?
  private(set) var configuration = AdapterConfiguration()
  private(set) var flags: OfferFlags = []

  public static let syntax = """
    switch[=NAME] (all of one name are one switch, between the guests), loopback, generator[=BYTES] \
    (frames as fast as guests take them, 64 bytes by default), sink (drops), tap=NAME (a TAP device \
    of this machine), or pcap=FILE (what guests send)
    """

  public init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let first = parts.first, let kind = Kind(first) else { return nil }
    self.kind = kind
    for option in parts.dropFirst() {
      let pair = option.split(separator: "=", maxSplits: 1).map(String.init)
      guard pair.count == 2, set(pair[0], pair[1]) else { return nil }
    }
  }

  /// The same, encrypted wholly where nothing else was said.
  public var confidential: NICArgument {
    var copy = self
    if flags.isEmpty { copy.flags = .confidential }
    return copy
  }

  private mutating func set(_ key: String, _ value: String) -> Bool {
    switch key {
    case "mac":
      guard let address = MACAddress(value), !address.isGroup else { return false }
      self.address = address
    case "mtu":
      guard let mtu = Int(value), AdapterConfiguration.mtuRange ~= mtu else { return false }
      configuration.mtu = mtu
    case "queues":
      guard let count = Int(value), 1...AdapterConfiguration.maximumQueueCount ~= count else {
        return false
      }
      configuration.maximumQueues = count
    case "speed":
      // In Mbit/s; the wire's unit is 100 bits per second.
      guard let speed = UInt64(value), 1...400_000 ~= speed else { return false }
      configuration.linkSpeed = speed * 10_000
    case "version":
      guard let version = NVSPVersion.newestFirst.first(where: { $0.description == value }) else {
        return false
      }
      configuration.newestVersion = version
    case "memory" where value == "ring": flags = .confidentialRingBuffer
    case "memory" where value == "all": flags = .confidential
    default: return false
    }
    return true
  }
}

extension NICArgument.Kind {
  init?(_ text: String) {
    let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      .map(String.init)
    let value = pair.count == 2 ? pair[1] : nil
    switch (pair[0], value) {
    case ("switch", nil): self = .hub("")
    case ("switch", let name?) where !name.isEmpty: self = .hub(name)
    case ("loopback", nil): self = .loopback
    case ("generator", nil): self = .generator(byteCount: 64)
    case ("generator", let text?):
      guard let count = Int(text), 60...FrameInfo.maximumByteCount ~= count else { return nil }
      self = .generator(byteCount: count)
    case ("sink", nil): self = .sink
    case ("tap", let name?) where !name.isEmpty: self = .tap(name)
    case ("pcap", let file?) where !file.isEmpty: self = .capture(file)
    default: return nil
    }
  }
}
