// SPDX-License-Identifier: Apache-2.0

/// What is known of a PCI function before it is opened.
public struct PCIIdentity: Sendable, Hashable {
  public var address: PCIAddress
  public var vendor: UInt16
  public var device: UInt16
  /// Base class, subclass and programming interface: 0x010802 for NVMe.
  public var classCode: UInt32
  public var revision: UInt8
  /// Where the function was found, for people: "VFIO group 7", "simulated device".
  public var transport: String

  public init(
    address: PCIAddress, vendor: UInt16, device: UInt16, classCode: UInt32, revision: UInt8,
    transport: String
  ) {
    self.address = address
    self.vendor = vendor
    self.device = device
    self.classCode = classCode
    self.revision = revision
    self.transport = transport
  }
}

/// Where a function lies on its machine's PCI: "0000:00:02.0".
public struct PCIAddress: Sendable, Hashable, Comparable, CustomStringConvertible {
  public var domain: UInt32
  public var bus: UInt8
  /// 0 to 31.
  public var device: UInt8
  /// 0 to 7.
  public var function: UInt8

  public init(domain: UInt32 = 0, bus: UInt8, device: UInt8, function: UInt8) {
    self.domain = domain
    self.bus = bus
    self.device = device & 31
    self.function = function & 7
  }

  /// - Parameter text: with or without the domain; nil when it is no address.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard 2...3 ~= parts.count, let last = parts.last else { return nil }
    let place = last.split(separator: ".", omittingEmptySubsequences: false)
    guard place.count == 2,
      let domain = parts.count == 3 ? UInt32(parts[0], radix: 16) : 0,
      let bus = UInt8(parts[parts.count - 2], radix: 16),
      let device = UInt8(place[0], radix: 16), device < 32,
      let function = UInt8(place[1], radix: 16), function < 8
    else { return nil }
    self.init(domain: domain, bus: bus, device: device, function: function)
  }

  public var description: String {
    "\(hex(domain, 4)):\(hex(UInt32(bus), 2)):\(hex(UInt32(device), 2)).\(function)"
  }

  private func hex(_ value: UInt32, _ digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(digits - text.count, 0)) + text
  }

  public static func < (left: Self, right: Self) -> Bool {
    (left.domain, left.bus, left.device, left.function)
      < (right.domain, right.bus, right.device, right.function)
  }
}
