// SPDX-License-Identifier: Apache-2.0

import CLinux
import Glibc
import Platform
import SimulatedLink
import VMBus

@testable import SimulatedHost

/// All that the untrusted host can see of a guest: the memory files that it was given, whole, with a
/// model of what may be in them.
///
/// The host looks with the processor that the guest uses: no page is left out, whatever any map says of
/// it. What was never written is a hole of the file, and zero.
@safe
final class HostView {
  /// A file and the pages of the guest that lie in it.
  @safe
  private struct File {
    let descriptor: Int32
    let firstPage: GPN
    let pageCount: Int
    /// The place of the pages here, and of the model of them.
    let start: UnsafeMutableRawPointer
    let model: UnsafeMutableRawPointer
  }

  private let memory: GuestMemory
  private let files: [File]
  private let mappings: [Mapping]
  private let boundary: GPN
  /// For each file, the pages that are no hole, at the last look.
  private var written: [[Range<Int>]]
  /// Pages that were compared so far.
  private(set) var compared = 0

  private final class Mapping {
    let memory: MappedMemory

    init(_ memory: consuming MappedMemory) { self.memory = memory }
  }

  /// A page that is not what the model says.
  @safe
  struct Change {
    let page: GPN
    /// By the host's own map.
    let isVisible: Bool
    let content: UnsafeRawBufferPointer
  }

  /// - Parameters:
  ///   - memory: as the host has it.
  ///   - boundary: the bit of the page number of a host-visible page.
  init(_ memory: GuestMemory, boundary: GPN) throws {
    self.memory = memory
    self.boundary = boundary
    let (regions, descriptors) = memory.hostVisible
    var files: [File] = []
    var mappings: [Mapping] = []
    for region in regions where region.fileOffset == 0 {
      let byteCount = Int(region.pageCount) * 4096
      let descriptor = descriptors[Int(region.file)]
      let content = Mapping(try MappedMemory(descriptor, byteCount: byteCount))
      let model = Mapping(try MemoryFile(name: "model", byteCount: byteCount).map())
      // Safe: this object keeps the mappings.
      unsafe files.append(
        File(
          descriptor: descriptor, firstPage: region.firstPage,
          pageCount: Int(region.pageCount), start: content.memory.start,
          model: model.memory.start))
      mappings += [content, model]
    }
    self.files = files
    written = Array(repeating: [], count: files.count)
    self.mappings = mappings
  }

  /// Compares all of the memory with the model, which is then what was found. Calls `body` for each page
  /// that differs.
  func look(_ body: (Change) -> Void) {
    for index in files.indices {
      let file = files[index]
      let (last, now) = (written[index], data(of: file))
      written[index] = now
      // What became a hole is zero.
      for pages in last == now ? now : last + now {
        for page in pages { compare(file, page, body) }
      }
    }
  }

  private func compare(_ file: File, _ page: Int, _ body: (Change) -> Void) {
    let (now, model) = unsafe (file.start + page * 4096, file.model + page * 4096)
    compared += 1
    guard unsafe memcmp(now, model, 4096) != 0 else { return }
    unsafe memcpy(model, now, 4096)
    let number = file.firstPage + GPN(page)
    unsafe body(
      Change(
        page: number, isVisible: memory.contains(number, in: .hostVisible),
        content: UnsafeRawBufferPointer(start: model, count: 4096)))
  }

  /// Pages that are no hole.
  private func data(of file: File) -> [Range<Int>] {
    var stretches: [Range<Int>] = []
    var end = 0
    while true {
      let start = Int(vmbus_seek_data(file.descriptor, Int64(end)))
      guard start >= 0 else { return stretches }
      end = Int(vmbus_seek_hole(file.descriptor, Int64(start)))
      stretches.append(start / 4096..<min((end + 4095) / 4096, file.pageCount))
    }
  }

  // MARK: - The model, and the memory

  /// What is to be found from now on.
  func expect(_ bytes: UnsafeRawBufferPointer, at address: UInt64) {
    guard let place = unsafe place(of: address) else { return }
    unsafe UnsafeMutableRawPointer(place.model).copyMemory(
      from: bytes.baseAddress ?? UnsafeRawPointer(place.model), byteCount: bytes.count)
  }

  func expectZero(at address: UInt64, byteCount: Int) {
    guard let place = unsafe place(of: address) else { return }
    unsafe memset(place.model, 0, byteCount)
  }

  /// Writes into the guest's memory.
  func plant(_ bytes: [UInt8], at address: UInt64) {
    guard let place = unsafe place(of: address) else { return }
    unsafe UnsafeMutableRawBufferPointer(start: place.now, count: bytes.count)
      .copyBytes(from: bytes)
  }

  @unsafe
  private func place(
    of address: UInt64
  ) -> (now: UnsafeMutableRawPointer, model: UnsafeMutableRawPointer)? {
    let page = address >> 12 & ~boundary
    for file in files {
      guard page >= file.firstPage else { continue }
      let index = Int(page - file.firstPage)
      guard index < file.pageCount else { continue }
      let offset = index * 4096 + Int(address & 4095)
      return unsafe (file.start + offset, file.model + offset)
    }
    return nil
  }

  /// Pages that hold anything, by the last look.
  var pagesInUse: [GPN] {
    files.enumerated().flatMap { index, file in
      written[index].joined().filter { page in
        (0..<512).contains { word in
          unsafe (file.model + page * 4096).load(fromByteOffset: word * 8, as: UInt64.self) != 0
        }
      }.map { file.firstPage + GPN($0) }
    }
  }

  /// A page of the guest that the host may see, or may not, and that nothing lies in.
  func freePage(isVisible: Bool, except uses: [Range<GPN>]) -> GPN? {
    guard let file = files.first else { return nil }
    return (file.firstPage..<file.firstPage + GPN(file.pageCount)).first { page in
      memory.contains(page, in: .hostVisible) == isVisible
        && !uses.contains { $0.contains(page) }
    }
  }
}

/// Whether bytes lie anywhere in others.
func contains(_ bytes: UnsafeRawBufferPointer, _ wanted: [UInt8]) -> Bool {
  guard let first = wanted.first, let start = bytes.baseAddress else { return false }
  var position = 0
  while position + wanted.count <= bytes.count {
    let left = bytes.count - wanted.count + 1 - position
    guard let found = unsafe memchr(start + position, Int32(first), left) else { return false }
    if unsafe memcmp(found, wanted, wanted.count) == 0 { return true }
    position = unsafe UnsafeRawPointer(found) - start + 1
  }
  return false
}
