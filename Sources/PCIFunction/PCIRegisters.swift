// SPDX-License-Identifier: Apache-2.0

public import CLinux

/// The registers of a BAR, mapped. Each access is made once, as wide as it says, little-endian, and is
/// refused unless it lies within the BAR on a multiple of its width. Several threads may use it: a
/// driver divides the registers among its queues.
///
/// What is read is the device's word: a wrong one must harm nobody. All ones are what a function that was
/// taken away reads as; the driver then asks `PCIFunction.endReason`.
@safe
public struct PCIRegisters: @unchecked Sendable {
  @usableFromInline let start: UnsafeMutableRawPointer
  public let byteCount: Int
  /// Keeps the mapping.
  public let owner: any AnyObject & Sendable

  /// The transport promises that the mapping stays while `owner` lives, and that touching it never kills
  /// the process.
  ///
  /// - Parameter start: aligned to a page.
  @unsafe
  public init(
    start: UnsafeMutableRawPointer, byteCount: Int, owner: any AnyObject & Sendable
  ) {
    unsafe self.start = start
    self.byteCount = byteCount
    self.owner = owner
  }

  private func place(_ offset: Int, _ width: Int) throws(PCIError) -> UnsafeMutableRawPointer {
    guard offset >= 0, width <= byteCount, offset <= byteCount - width, offset % width == 0 else {
      throw .badAccess(offset: offset, byteCount: width, limit: byteCount)
    }
    return unsafe start + offset
  }

  public func read8(at offset: Int) throws(PCIError) -> UInt8 {
    unsafe vmbus_read8(try place(offset, 1))
  }

  public func read16(at offset: Int) throws(PCIError) -> UInt16 {
    unsafe UInt16(littleEndian: vmbus_read16(try place(offset, 2)))
  }

  public func read32(at offset: Int) throws(PCIError) -> UInt32 {
    unsafe UInt32(littleEndian: vmbus_read32(try place(offset, 4)))
  }

  public func read64(at offset: Int) throws(PCIError) -> UInt64 {
    unsafe UInt64(littleEndian: vmbus_read64(try place(offset, 8)))
  }

  public func write8(_ value: UInt8, at offset: Int) throws(PCIError) {
    let place = unsafe try place(offset, 1)
    vmbus_before_register()
    unsafe vmbus_write8(place, value)
  }

  public func write16(_ value: UInt16, at offset: Int) throws(PCIError) {
    let place = unsafe try place(offset, 2)
    vmbus_before_register()
    unsafe vmbus_write16(place, value.littleEndian)
  }

  public func write32(_ value: UInt32, at offset: Int) throws(PCIError) {
    let place = unsafe try place(offset, 4)
    vmbus_before_register()
    unsafe vmbus_write32(place, value.littleEndian)
  }

  public func write64(_ value: UInt64, at offset: Int) throws(PCIError) {
    let place = unsafe try place(offset, 8)
    vmbus_before_register()
    unsafe vmbus_write64(place, value.littleEndian)
  }

  /// A register that is written on the data path: what can be wrong with it is found here, once.
  public func doorbell(at offset: Int) throws(PCIError) -> PCIDoorbell {
    unsafe PCIDoorbell(place: try place(offset, 4), owner: owner)
  }
}

/// A register of 32 bits that a driver writes when it has put something into memory for the device.
///
/// It is noncopyable, so that a queue which has it counts no references when it rings.
@safe
public struct PCIDoorbell: ~Copyable, @unchecked Sendable {
  @usableFromInline let place: UnsafeMutableRawPointer
  @usableFromInline let owner: any AnyObject & Sendable

  init(place: UnsafeMutableRawPointer, owner: any AnyObject & Sendable) {
    unsafe self.place = place
    self.owner = owner
  }

  /// What was written to memory before is seen first.
  @inlinable
  public borrowing func ring(_ value: UInt32) {
    vmbus_before_register()
    unsafe vmbus_write32(place, value.littleEndian)
  }
}
