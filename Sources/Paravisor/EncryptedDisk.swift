// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
public import SimulatedHost
public import StorageVSC
import Synchronization

/// A disk of the untrusted host, as the paravisor has it for its guests: what lies there is
/// ciphertext, so that the host holds nothing else.
///
/// The host can still hold sectors back, or give old ones: XTS hides what is in them, and no more.
public final class EncryptedDisk: BlockBackend {
  private let disk: BlockDevice
  private let cipher: SectorCipher
  /// Parts of sectors are read, changed and written: one at a time.
  private let partial = Lock(())

  /// - Parameter key: 64 bytes; nil when it is no key of AES-256-XTS.
  public init?(_ disk: BlockDevice, key: [UInt8]) {
    guard let cipher = SectorCipher(key: key) else { return nil }
    self.disk = disk
    self.cipher = cipher
  }

  public var name: String { "disk \(disk.lun) of the host, encrypted" }
  public var byteCount: UInt64 { disk.byteCount }
  public var isReadOnly: Bool { disk.information.disk.isReadOnly }

  @_lifetime(target: copy target)
  public func read(at offset: UInt64, into target: inout MutableRawSpan) throws(BlockError) {
    let (sectors, skipped) = sectors(offset, target.byteCount)
    let plain = try load(sectors)
    // Safe: as many bytes as the span has.
    unsafe target.withUnsafeMutableBytes { target in
      unsafe target.copyBytes(from: plain[skipped..<skipped + target.count])
    }
  }

  public func write(at offset: UInt64, from source: RawSpan) throws(BlockError) {
    let (sectors, skipped) = sectors(offset, source.byteCount)
    let isWhole = skipped == 0 && source.byteCount == Int(sectors.count) * Self.sector
    let bytes = unsafe source.withUnsafeBytes { unsafe [UInt8]($0) }
    guard !isWhole else { return try store(bytes, sectors) }
    let result = partial.withLock { _ -> Result<Void, BlockError> in
      do throws(BlockError) {
        var plain = try load(sectors)
        plain.replaceSubrange(skipped..<skipped + bytes.count, with: bytes)
        return .success(try store(plain, sectors))
      } catch {
        return .failure(error)
      }
    }
    try result.get()
  }

  public func flush() throws(BlockError) {
    do throws(StorageError) { try disk.flush() } catch { throw Self.error(error) }
  }

  /// Zeros are written, as ciphertext: what the host gives back for discarded sectors is not ours.
  public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count - done, 1 << 16))
      let zeros = [UInt8](repeating: 0, count: piece)
      try write(at: offset + done, from: unsafe zeros.span.bytes)
      done += UInt64(piece)
    }
  }

  public func allocation(at offset: UInt64) throws(BlockError) -> BlockAllocation {
    guard offset < byteCount else { throw .outOfRange }
    return BlockAllocation(isAllocated: true, byteCount: byteCount - offset)
  }

  public func refresh() throws(BlockError) -> Bool { false }

  // MARK: - Whole sectors

  private static let sector = SectorCipher.sectorByteCount

  /// The sectors that bytes lie in, and how many bytes of the first come before them.
  private func sectors(_ offset: UInt64, _ count: Int) -> (Range<UInt64>, skipped: Int) {
    let size = UInt64(Self.sector)
    return (
      offset / size..<(offset + UInt64(count) + size - 1) / size, Int(offset % size)
    )
  }

  private func load(_ sectors: Range<UInt64>) throws(BlockError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: sectors.count * Self.sector)
    let result = unsafe bytes.withUnsafeMutableBytes { buffer -> Result<Void, StorageError> in
      do throws(StorageError) {
        return .success(
          unsafe try disk.read(at: sectors.lowerBound * UInt64(Self.sector), into: buffer))
      } catch {
        return .failure(error)
      }
    }
    if case .failure(let error) = result { throw Self.error(error) }
    guard cipher.decrypt(&bytes, firstSector: sectors.lowerBound) else { throw .system(EIO) }
    return bytes
  }

  private func store(_ plain: [UInt8], _ sectors: Range<UInt64>) throws(BlockError) {
    var bytes = plain
    guard cipher.encrypt(&bytes, firstSector: sectors.lowerBound) else { throw .system(EIO) }
    let result = unsafe bytes.withUnsafeBytes { buffer -> Result<Void, StorageError> in
      do throws(StorageError) {
        return .success(
          unsafe try disk.write(at: sectors.lowerBound * UInt64(Self.sector), from: buffer))
      } catch {
        return .failure(error)
      }
    }
    if case .failure(let error) = result { throw Self.error(error) }
  }

  private static func error(_ error: StorageError) -> BlockError {
    switch error {
    case .outOfRange: .outOfRange
    case .readOnly: .readOnly
    default: .system(EIO)
    }
  }
}
