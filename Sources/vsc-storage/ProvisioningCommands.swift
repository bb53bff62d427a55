// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import StorageVSC
import VSC

/// A part of the disk.
struct RangeOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The first byte, such as 512, 4K or 1M.", valueName: "bytes"))
  var offset = ByteCount(bytes: 0)

  @Option(help: ArgumentHelp("How many.", valueName: "bytes"))
  var count: ByteCount
}

struct DiscardCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "discard",
    abstract: "Tells the disk that bytes are not needed any more.",
    discussion: "What is read there is undefined until it is written. Parts of blocks stay.")

  @OptionGroup var disk: DiskOptions
  @OptionGroup var range: RangeOptions

  func run() async throws {
    let (offset, count) = (range.offset.bytes, range.count.bytes)
    try await withDisk(disk) { disk in
      try await disk.discard(at: offset, count: count)
      try await disk.flush()
    }
  }
}

struct ZeroCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "zero", abstract: "Fills bytes with zeros, without sending them where possible.")

  @OptionGroup var disk: DiskOptions
  @OptionGroup var range: RangeOptions

  @Flag(help: "Keep the storage of a thin disk.")
  var allocate = false

  func run() async throws {
    let (offset, count, allocate) = (range.offset.bytes, range.count.bytes, allocate)
    try await withDisk(disk) { disk in
      try await disk.writeZeroes(at: offset, count: count, mayUnmap: !allocate, forced: true)
    }
  }
}
