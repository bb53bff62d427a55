// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import BlockStorage
import ProgramSupport
import SystemPackage
import VSC

/// Bytes that are copied at once; the driver keeps all of it under way.
private let pieceByteCount = 8 << 20

public struct ReadCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "read", abstract: "Copies bytes of the disk to a file or to standard output.")
  }

  public init() {}

  @OptionGroup public var disk: Source

  @Option(help: ArgumentHelp("The first byte, such as 512, 4K or 1M.", valueName: "bytes"))
  var offset = ByteCount(bytes: 0)

  @Option(help: ArgumentHelp("How many; by default all that follow.", valueName: "bytes"))
  var count: ByteCount?

  @Option(help: ArgumentHelp("The file to write; by default standard output.", valueName: "file"))
  var to: String?

  public func run() async throws {
    let (offset, asked, path) = (offset.bytes, count?.bytes, to)
    try await disk.withDisk { disk in
      guard offset <= disk.byteCount else {
        throw StorageError.outOfRange(
          offset: offset, byteCount: Int(asked ?? 0), capacity: disk.byteCount)
      }
      let count = asked ?? disk.byteCount - offset
      guard count <= disk.byteCount - offset else {
        throw StorageError.outOfRange(
          offset: offset, byteCount: Int(count), capacity: disk.byteCount)
      }
      let output = try open(path)
      defer { if path != nil { try? output.close() } }
      var progress = Progress()
      var done: UInt64 = 0
      while done < count {
        let piece = Int(min(UInt64(pieceByteCount), count - done))
        let bytes = try await disk.read(at: offset + done, count: piece)
        do {
          try output.writeAll(bytes)
        } catch let error as Errno {
          throw ProgramFailure(.cannotCreate, "\(path ?? "standard output"): \(error)")
        }
        done += UInt64(piece)
        progress.show { copyText("read", done, count, $0) }
      }
      progress.clear()
    }
  }

  private func open(_ path: String?) throws -> FileDescriptor {
    guard let path else { return .standardOutput }
    do {
      return try FileDescriptor.open(
        FilePath(path), .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
    } catch {
      throw ProgramFailure(.cannotCreate, "\(path): \(error)")
    }
  }
}

public struct WriteCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "write",
      abstract: "Copies a file or standard input to the disk, and brings it to stable storage.")
  }

  public init() {}

  @OptionGroup public var disk: Source

  @Option(help: ArgumentHelp("The first byte, such as 512, 4K or 1M.", valueName: "bytes"))
  var offset = ByteCount(bytes: 0)

  @Option(help: ArgumentHelp("How many at most; by default all of the input.", valueName: "bytes"))
  var count: ByteCount?

  @Option(help: ArgumentHelp("The file to read; by default standard input.", valueName: "file"))
  var from: String?

  public func run() async throws {
    let (offset, limit, path) = (offset.bytes, count?.bytes ?? UInt64(Int64.max), from)
    let input = try open(path)
    defer { if path != nil { try? input.close() } }
    try await disk.withDisk { disk in
      // A file that does not fit is refused before anything of it is written.
      let size = path == nil ? nil : (try? input.seek(offset: 0, from: .end)).map { UInt64($0) }
      if size != nil { _ = try? input.seek(offset: 0, from: .start) }
      let expected = min(limit, size ?? 0)
      guard offset <= disk.byteCount, expected <= disk.byteCount - offset else {
        throw StorageError.outOfRange(
          offset: offset, byteCount: Int(expected), capacity: disk.byteCount)
      }
      var progress = Progress()
      var done: UInt64 = 0
      while done < limit {
        let piece = try read(input, Int(min(UInt64(pieceByteCount), limit - done)), path)
        if piece.isEmpty { break }
        try await disk.write(at: offset + done, piece)
        done += UInt64(piece.count)
        progress.show { copyText("written", done, size.map { min($0, limit) }, $0) }
      }
      try await disk.flush()
      progress.clear()
    }
  }

  private func open(_ path: String?) throws -> FileDescriptor {
    guard let path else { return .standardInput }
    do {
      return try FileDescriptor.open(FilePath(path), .readOnly)
    } catch {
      throw ProgramFailure(.noInput, "\(path): \(error)")
    }
  }
}

/// As many bytes as there are, at most `count`.
private func read(_ input: FileDescriptor, _ count: Int, _ path: String?) throws -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: count)
  var filled = 0
  do {
    while filled < count {
      let got = try unsafe bytes.withUnsafeMutableBytes { buffer in
        try unsafe input.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
      }
      if got == 0 { break }
      filled += got
    }
  } catch {
    throw ProgramFailure(.noInput, "\(path ?? "standard input"): \(error)")
  }
  bytes.removeLast(count - filled)
  return bytes
}

private func copyText(_ what: String, _ done: UInt64, _ all: UInt64?, _ seconds: Double) -> String {
  let speed = "\(humanBytes(Double(done) / seconds))/s"
  guard let all, all > 0 else { return "\(humanBytes(Double(done))) \(what), \(speed)" }
  return "\(Int(Double(done) / Double(all) * 100)) % \(what), \(speed)"
}
