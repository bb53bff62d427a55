// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import BlockStorage
import ProgramSupport
import VSC

/// A part of the disk.
struct RangeOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The first byte, such as 512, 4K or 1M.", valueName: "bytes"))
  var offset = ByteCount(bytes: 0)

  @Option(help: ArgumentHelp("How many.", valueName: "bytes"))
  var count: ByteCount
}

public struct DiscardCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "discard",
      abstract: "Tells the disk that bytes are not needed any more.",
      discussion: "What is read there is undefined until it is written. Parts of blocks stay.")
  }

  public init() {}

  @OptionGroup public var disk: Source
  @OptionGroup var range: RangeOptions

  public func run() async throws {
    let (offset, count) = (range.offset.bytes, range.count.bytes)
    try await disk.withDisk { disk in
      try await disk.discard(at: offset, count: count)
      try await disk.flush()
    }
  }
}

public struct ZeroCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "zero", abstract: "Fills bytes with zeros, without sending them where possible.")
  }

  public init() {}

  @OptionGroup public var disk: Source
  @OptionGroup var range: RangeOptions

  @Flag(help: "Keep the storage of a thin disk.")
  var allocate = false

  public func run() async throws {
    let (offset, count, allocate) = (range.offset.bytes, range.count.bytes, allocate)
    try await disk.withDisk { disk in
      try await disk.writeZeroes(at: offset, count: count, mayUnmap: !allocate, forced: true)
    }
  }
}
