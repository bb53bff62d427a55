// SPDX-License-Identifier: Apache-2.0

import CLinux
import CVFIO
import PCIFunction
import SystemPackage
import VMBus
import VSC

/// The configuration space of an open function.
struct PCIConfiguration: Sendable {
  let descriptor: Int32
  /// In the function's file.
  let offset: UInt64
  /// 256 or 4096.
  let byteCount: Int

  enum Register {
    static let command = 0x04
    static let status = 0x06
    static let classAndRevision = 0x08
    static let capabilities = 0x34
  }

  private static let busMaster: UInt32 = 1 << 2
  private static let hasCapabilities: UInt32 = 1 << 4
  private static let expressCapability: UInt32 = 0x10
  private static let transactionsPending: UInt32 = 1 << 5

  private func check(_ offset: Int, _ width: Int) throws(PCIError) {
    guard width == 1 || width == 2 || width == 4, offset >= 0, offset <= byteCount - width,
      offset % width == 0
    else { throw .badAccess(offset: offset, byteCount: width, limit: byteCount) }
  }

  func read(at offset: Int, width: Int) throws(PCIError) -> UInt32 {
    try check(offset, width)
    var value: UInt32 = 0
    let result = unsafe vmbus_vfio_read(
      descriptor, self.offset + UInt64(offset), &value, width)
    guard result == 0 else { throw Self.failed(-result) }
    return UInt32(littleEndian: value)
  }

  func write(_ value: UInt32, at offset: Int, width: Int) throws(PCIError) {
    try check(offset, width)
    var bytes = value.littleEndian
    let result = unsafe vmbus_vfio_write(
      descriptor, self.offset + UInt64(offset), &bytes, width)
    guard result == 0 else { throw Self.failed(-result) }
  }

  private static func failed(_ code: Int32) -> PCIError {
    .transport(VFIOCall.failed("configuration space", code))
  }

  /// Nobody answers any more: the bus reads as all ones then.
  var isGone: Bool {
    (try? read(at: Register.classAndRevision, width: 4)) ?? .max == .max
  }

  // MARK: - Bus mastering

  /// Turns bus mastering on or off, and looks whether that is so.
  func setBusMastering(_ isOn: Bool) throws(PCIError) {
    let command = try read(at: Register.command, width: 2)
    let wanted = isOn ? command | Self.busMaster : command & ~Self.busMaster
    try write(wanted, at: Register.command, width: 2)
    let found = try read(at: Register.command, width: 2)
    // All ones is what nobody's answer reads as.
    guard found != 0xFFFF else { throw .ended(.rescinded) }
    guard found & Self.busMaster == wanted & Self.busMaster else {
      throw .transport(
        .unusable(reason: "the function's bus mastering can't be turned \(isOn ? "on" : "off")"))
    }
    if !isOn { try waitForTransactions() }
  }

  /// What the function has asked for is still to be answered after bus mastering was turned off. Its
  /// writes are ordered before the answers to our reads of its configuration.
  private func waitForTransactions() throws(PCIError) {
    guard let express = try capability(Self.expressCapability) else { return }
    for _ in 0..<100 {
      let status = try read(at: express + 0x0A, width: 2)
      if status & Self.transactionsPending == 0 { return }
      vmbus_sleep_milliseconds(10)
    }
    throw .transport(.timedOut("end of the function's transfers"))
  }

  /// Where a capability lies, or nil when the function has none of the kind.
  private func capability(_ kind: UInt32) throws(PCIError) -> Int? {
    guard try read(at: Register.status, width: 2) & Self.hasCapabilities != 0 else { return nil }
    var place = Int(try read(at: Register.capabilities, width: 1)) & ~3
    // More of them do not fit: a list that goes in a circle ends here.
    for _ in 0..<48 where place >= 0x40 {
      let header = try read(at: place, width: 2)
      if header & 0xFF == kind { return place }
      place = Int(header >> 8) & ~3
    }
    return nil
  }
}
