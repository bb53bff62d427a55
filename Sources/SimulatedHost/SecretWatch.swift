// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import Synchronization
public import VMBus

/// Looks for secrets in all that a host can see of its guests, at each of their signals.
///
/// A signal comes when a guest has published packets for a device that sleeps. What the packets name lies in
/// guest memory then, and nothing of it has been moved yet.
public final class SecretWatch: Sendable {
  public struct Counts: Sendable, Equatable {
    public var looks: UInt64 = 0
    /// Looks that found anything.
    public var findings: UInt64 = 0
    /// The first page where one was found.
    public var firstPage: GPN?

    public init(looks: UInt64 = 0, findings: UInt64 = 0, firstPage: GPN? = nil) {
      self.looks = looks
      self.findings = findings
      self.firstPage = firstPage
    }
  }

  private let secrets: [[UInt8]]
  private let state = Lock(Counts())

  /// - Parameter secrets: bytes that nothing else looks like; empty ones are left out.
  public init(_ secrets: [[UInt8]]) { self.secrets = secrets.filter { !$0.isEmpty } }

  public var counts: Counts { state.withLock { $0 } }

  func look(at memory: GuestMemory) {
    var found: GPN?
    unsafe memory.visitHostVisible { first, bytes in
      guard let start = bytes.baseAddress, found == nil else { return }
      for secret in secrets {
        let place = unsafe secret.withUnsafeBytes { secret in
          unsafe secret.baseAddress.flatMap {
            unsafe vmbus_find(start, bytes.count, $0, secret.count)
          }
        }
        if let place = unsafe place { unsafe found = first + GPN((place - start) / 4096) }
      }
    }
    state.withLock { state in
      state.looks += 1
      if found != nil { state.findings += 1 }
      if state.firstPage == nil { state.firstPage = found }
    }
  }
}

extension GuestMemory {
  /// Calls `body` with each stretch of memory that the untrusted host can see, and its first page. Holes of the
  /// files are left out: they are zero.
  func visitHostVisible(_ body: (GPN, UnsafeRawBufferPointer) -> Void) {
    for region in visibleRegions {
      let end = region.fileOffset + Int(region.pageCount) * 4096
      var offset = region.fileOffset
      while offset < end {
        let data = Int(vmbus_seek_data(region.file, Int64(offset)))
        guard data >= 0, data < end else { break }
        let hole = min(Int(vmbus_seek_hole(region.file, Int64(data))), end)
        guard hole > data else { break }
        unsafe visit(region, data - region.fileOffset..<hole - region.fileOffset, body)
        offset = hole
      }
    }
  }

  /// Of a guest that hides pages, those that are visible now.
  private func visit(
    _ region: Region, _ bytes: Range<Int>, _ body: (GPN, UnsafeRawBufferPointer) -> Void
  ) {
    guard let map = region.map else {
      unsafe body(
        region.firstPage + GPN(bytes.lowerBound / 4096),
        UnsafeRawBufferPointer(start: region.start + bytes.lowerBound, count: bytes.count))
      return
    }
    var index = UInt64(bytes.lowerBound / 4096)
    let end = UInt64((bytes.upperBound + 4095) / 4096)
    while index < end {
      let run = min(map.run(from: index, visible: true), end - index)
      if run > 0 {
        unsafe body(
          region.firstPage + index,
          UnsafeRawBufferPointer(start: region.start + Int(index) * 4096, count: Int(run) * 4096))
      }
      index += max(run, 1)
    }
  }
}
