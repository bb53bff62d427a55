// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What is wrong with a file that should be a kernel.
public enum BootImageError: Error, Equatable, Sendable {
  /// It does not begin as a bzImage does.
  case noBootImage
  /// Its boot protocol is older than 2.12.
  case oldProtocol(UInt16)
  /// It has no entry for 64-bit mode.
  case no64BitEntry
  /// It is cut off.
  case truncated
}

extension BootImageError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noBootImage: "not a bzImage (Debian: /boot/vmlinuz-VERSION)"
    case .oldProtocol(let version):
      "a kernel of boot protocol \(version >> 8).\(version & 0xFF), and 2.12 is needed"
    case .no64BitEntry: "a kernel that can't be started in 64-bit mode"
    case .truncated: "a bzImage that is cut off"
    }
  }
}

/// A Linux kernel as a bzImage: its set-up header, and the part that runs in 64-bit mode.
/// (Linux's Documentation/arch/x86/boot.rst.)
public struct BootImage: Sendable {
  /// The bytes of the file from 0x1F1 on that go into the boot parameters at the same place.
  let setUpHeader: [UInt8]
  /// What is loaded; its 64-bit entry is 512 bytes into it.
  let kernel: ArraySlice<UInt8>
  /// Where it wants to be loaded.
  let preferredAddress: UInt64
  /// Bytes that it needs from there on until it has unpacked itself.
  let initialByteCount: UInt32
  /// The last byte that an initial file system may take.
  let maximumInitrdAddress: UInt32
  let maximumCommandLine: UInt32
  /// As it calls itself: `6.12.107+deb13-cloud-amd64 ...`.
  public let version: String

  static let headerOffset = 0x1F1
  /// Bytes into the loaded part.
  static let entryOffset: UInt64 = 0x200

  public init(_ file: [UInt8]) throws(BootImageError) {
    guard file.count >= 0x206, try Self.read(UInt16.self, file, 0x1FE) == 0xAA55,
      try Self.read(UInt32.self, file, 0x202) == 0x5372_6448  // "HdrS"
    else { throw .noBootImage }
    let version = try Self.read(UInt16.self, file, 0x206)
    guard version >= 0x20C else { throw .oldProtocol(version) }
    guard try Self.read(UInt16.self, file, 0x236) & 1 != 0 else { throw .no64BitEntry }
    // The header's end is where its first jump goes to.
    let end = 0x202 + Int(try Self.read(UInt8.self, file, 0x201))
    guard end >= 0x264, end <= file.count else { throw .truncated }
    setUpHeader = Array(file[Self.headerOffset..<end])
    let sectors = try Self.read(UInt8.self, file, Self.headerOffset)
    // 0 stands for 4; one more is the boot sector.
    let start = (Int(sectors == 0 ? 4 : sectors) + 1) * 512
    guard file.count > start + Int(Self.entryOffset) else { throw .truncated }
    kernel = file[start...]
    preferredAddress = try Self.read(UInt64.self, file, 0x258)
    initialByteCount = try Self.read(UInt32.self, file, 0x260)
    maximumInitrdAddress = try Self.read(UInt32.self, file, 0x22C)
    maximumCommandLine = try Self.read(UInt32.self, file, 0x238)
    let text = 0x200 + Int(try Self.read(UInt16.self, file, 0x20E))
    self.version =
      text > 0x200 && text < start
      ? String(decoding: file[text..<start].prefix { $0 != 0 }.prefix(128), as: UTF8.self) : ""
  }

  private static func read<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ file: [UInt8], _ offset: Int
  ) throws(BootImageError) -> T {
    do throws(WireError) {
      var reader = WireReader(unsafe file.span.bytes, name: "bzImage")
      try reader.skip(offset)
      return try reader.read()
    } catch {
      throw .truncated
    }
  }
}
