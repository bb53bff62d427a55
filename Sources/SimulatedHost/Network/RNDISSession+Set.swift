// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VMBus

extension RNDISSession {
  /// Sets an object.
  ///
  /// - Throws: `tooShort` for a buffer that is shorter than the object; else it is invalid data.
  mutating func set(
    _ oid: OID, _ buffer: RawSpan, _ facts: NetworkFacts
  ) throws(WireError) -> (RNDISStatus, Event) {
    var reader = WireReader(buffer, name: "object")
    switch oid {
    case .currentPacketFilter:
      filter = PacketFilter(rawValue: try reader.read())
      return (.success, .filter(filter))
    case .currentLookahead:
      lookahead = try reader.read()
      return (.success, .none)
    case .protocolOptions, .linkParameters, .networkLayerAddresses:
      // Hints, and what a virtual link does not have.
      return (.success, .none)
    case .multicastList:
      return (try setMulticast(&reader), .none)
    case .receiveScaleParameters:
      guard facts.ndisVersion >= 0x0006_001E else { return (.notSupported, .none) }
      scaling = try newScaling(buffer, facts)
      return (.success, .scaling(scaling))
    case .offloadParameters:
      try setOffloads(&reader, facts)
      return (.success, .offloads)
    case .offloadEncapsulation:
      return (.success, .none)
    case .configurationParameter:
      return try setParameter(buffer)
    default:
      return (.notSupported, .none)
    }
  }

  private mutating func setMulticast(_ reader: inout WireReader) throws(WireError) -> RNDISStatus {
    guard reader.remaining % MACAddress.byteCount == 0 else { return .invalidLength }
    guard reader.remaining <= Self.maximumMulticastAddresses * MACAddress.byteCount else {
      return .multicastFull
    }
    var addresses: [MACAddress] = []
    while reader.remaining > 0 { addresses.append(try reader.read()) }
    multicastAddresses = addresses
    return .success
  }

  /// The scaling that a guest wants, over the one that it has.
  private func newScaling(
    _ buffer: RawSpan, _ facts: NetworkFacts
  ) throws(WireError) -> ReceiveScaling? {
    let name: WireName = "RSSParameters"
    let parameters = try RSSParameters(parsing: buffer)
    if parameters.flags.contains(.disable) { return nil }
    var new = scaling ?? ReceiveScaling(hash: [], key: Toeplitz.defaultKey, table: [0])
    if !parameters.flags.contains(.hashUnchanged) { new.hash = parameters.hash }
    if !parameters.flags.contains(.tableUnchanged) {
      let byteCount = Int(parameters.tableByteCount)
      let count = byteCount / 4
      // Hashes are cut off by a mask.
      guard byteCount % 4 == 0, 1...256 ~= count, count & (count - 1) == 0 else {
        throw .invalid(name, field: "tableByteCount", value: UInt64(byteCount))
      }
      var reader = WireReader(buffer, name: name)
      try reader.skip(Int(parameters.tableOffset))
      new.table = []
      for _ in 0..<count {
        let entry: UInt32 = try reader.read()
        guard entry < UInt32(clamping: facts.maximumQueues), let queue = UInt8(exactly: entry)
        else { throw .invalid(name, field: "table entry", value: UInt64(entry)) }
        new.table.append(queue)
      }
    }
    if !parameters.flags.contains(.keyUnchanged) {
      guard parameters.keyByteCount == 40 else {
        throw .invalid(name, field: "keyByteCount", value: UInt64(parameters.keyByteCount))
      }
      var reader = WireReader(buffer, name: name)
      try reader.skip(Int(parameters.keyOffset))
      for index in new.key.indices { new.key[index] = try reader.read() }
    }
    return new
  }

  private mutating func setOffloads(
    _ reader: inout WireReader, _ facts: NetworkFacts
  ) throws(WireError) {
    // NDIS before 6.30 has 22 bytes; what is missing stays as it is.
    let bytes = try reader.take(max(22, min(reader.remaining, NDISOffloadParameters.byteCount)))
    var whole = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
    whole += [UInt8](repeating: 0, count: NDISOffloadParameters.byteCount - whole.count)
    offloads = try NDISOffloadParameters(parsing: whole)
    guard facts.allowsCoalescing else { return }
    Self.set(&coalescesIPv4, offloads.receiveCoalescingIPv4)
    Self.set(&coalescesIPv6, offloads.receiveCoalescingIPv6)
  }

  private static func set(_ value: inout Bool, _ setting: OffloadSetting) {
    switch setting {
    case .disabled: value = false
    case .enabled: value = true
    default: break
    }
  }

  /// A named parameter: a new MAC address, as Linux sets it. Name and value are UTF-16.
  private mutating func setParameter(
    _ buffer: RawSpan
  ) throws(WireError) -> (RNDISStatus, Event) {
    var reader = WireReader(buffer, name: "configuration parameter")
    let nameOffset: UInt32 = try reader.read()
    let nameCount: UInt32 = try reader.read()
    let type: UInt32 = try reader.read()
    let valueOffset: UInt32 = try reader.read()
    let valueCount: UInt32 = try reader.read()
    let name = try Self.text(buffer, offset: nameOffset, byteCount: nameCount)
    let value = try Self.text(buffer, offset: valueOffset, byteCount: valueCount)
    // 2: a string.
    guard name == "NetworkAddress", type == 2 else { return (.notSupported, .none) }
    let pairs = stride(from: 0, to: value.count, by: 2).map { start in
      String(value.dropFirst(start).prefix(2))
    }
    guard value.count == 12, let address = MACAddress(pairs.joined(separator: ":")),
      !address.isGroup
    else { return (.invalidData, .none) }
    currentAddress = address
    return (.success, .address(address))
  }

  private static func text(
    _ buffer: RawSpan, offset: UInt32, byteCount: UInt32
  ) throws(WireError) -> String {
    var reader = WireReader(buffer, name: "configuration parameter")
    try reader.skip(Int(offset))
    guard byteCount <= 256 else {
      throw .invalid("configuration parameter", field: "length", value: UInt64(byteCount))
    }
    var units: [UInt16] = []
    for _ in 0..<byteCount / 2 { units.append(try reader.read()) }
    return String(decoding: units.prefix { $0 != 0 }, as: UTF16.self)
  }
}

extension OID {
  static let networkLayerAddresses = OID(rawValue: 0x0001_0118)
}
