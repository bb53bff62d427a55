// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

/// A kernel of 4 set-up sectors and 1024 bytes, with the fields that boot.rst demands.
func kernelFile(change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
  var file = [UInt8](repeating: 0, count: 5 * 512 + 1024)
  func put(_ offset: Int, _ bytes: [UInt8]) {
    file.replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }
  put(0x1F1, [4])
  put(0x1FE, [0x55, 0xAA])
  // The jump over the header, which ends at 0x26C.
  put(0x200, [0xEB, 0x6A])
  put(0x202, Array("HdrS".utf8))
  put(0x206, [0x0F, 0x02])
  put(0x20E, [0x00, 0x01])
  put(0x22C, [0xFF, 0xFF, 0xFF, 0x7F])
  put(0x236, [0x01, 0x00])
  put(0x238, [0xFF, 0x07, 0, 0])
  put(0x258, [0, 0, 0, 1, 0, 0, 0, 0])
  put(0x260, [0, 0x10, 0, 0])
  put(0x300, Array("6.12.0-test (somebody)".utf8))
  put(5 * 512, [0xDE, 0xAD])
  put(5 * 512 + 512, [0xF4])
  change(&file)
  return file
}

@Suite struct BootImageTests {
  static func error(_ file: [UInt8]) -> BootImageError? {
    do throws(BootImageError) {
      _ = try BootImage(file)
      return nil
    } catch {
      return error
    }
  }

  @Test func aKernelIsTakenApart() throws {
    let image = try BootImage(kernelFile())
    #expect(image.version == "6.12.0-test (somebody)")
    #expect(image.kernel.count == 1024 && image.kernel.first == 0xDE)
    #expect(image.preferredAddress == 0x100_0000)
    #expect(image.initialByteCount == 0x1000)
    #expect(image.maximumInitrdAddress == 0x7FFF_FFFF)
    #expect(image.maximumCommandLine == 2047)
    // 0x1F1 to 0x26C.
    #expect(image.setUpHeader.count == 0x7B)
  }

  @Test func noSectorsStandForFour() throws {
    let image = try BootImage(kernelFile { $0[0x1F1] = 0 })
    #expect(image.kernel.count == 1024)
  }

  @Test func otherFilesAreRefused() {
    #expect(Self.error([]) == .noBootImage)
    #expect(Self.error(Array("#!/bin/sh\n".utf8)) == .noBootImage)
    #expect(Self.error([UInt8](repeating: 0, count: 65536)) == .noBootImage)
    #expect(Self.error([0x7F, 0x45, 0x4C, 0x46]) == .noBootImage)
    #expect(Self.error(kernelFile { $0[0x1FE] = 0 }) == .noBootImage)
    #expect(Self.error(kernelFile { $0[0x205] = 0 }) == .noBootImage)
  }

  @Test func oldKernelsAreRefused() {
    #expect(Self.error(kernelFile { $0[0x206] = 0x0B }) == .oldProtocol(0x20B))
    #expect(Self.error(kernelFile { $0[0x236] = 0 }) == .no64BitEntry)
  }

  @Test func everyCutIsRefused() {
    let file = kernelFile()
    // Up to the 64-bit entry, 512 bytes behind the set-up sectors.
    for count in 0...5 * 512 + 512 {
      #expect(Self.error(Array(file.prefix(count))) != nil, "\(count) bytes")
    }
    #expect(Self.error(Array(file.prefix(5 * 512 + 513))) == nil)
  }

  @Test func aHeaderThatEndsTooEarlyOrTooLateIsRefused() {
    #expect(Self.error(kernelFile { $0[0x201] = 0 }) == .truncated)
    var short = kernelFile { file in
      file[0x1F1] = 1
      file[0x201] = 0xFF
    }
    short.removeLast(short.count - 0x300)
    #expect(Self.error(short) == .truncated)
  }

  @Test func aVersionOutsideOfTheSetUpPartIsNone() throws {
    #expect(try BootImage(kernelFile { $0[0x20F] = 0xFF }).version == "")
    #expect(try BootImage(kernelFile { $0[0x20F] = 0 }).version == "")
  }
}
