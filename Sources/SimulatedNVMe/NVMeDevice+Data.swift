// SPDX-License-Identifier: Apache-2.0

import NVMeProtocol
import SimulatedHost
import VMBus

/// The NVM commands, and the data of all of them.
extension NVMeDevice {
  func move(_ command: NVMeCommand) -> Outcome {
    guard let opcode = NVMeOpcode(rawValue: command.opcode) else { return .status(.invalidOpcode) }
    guard command.flags == 0 || settings.takesDescriptors && command.descriptor != nil else {
      return .status(.invalidField)
    }
    if opcode == .flush, command.namespace == .max {
      for namespace in namespaces { try? namespace.image.flush() }
      return .status(.success)
    }
    guard 1...UInt32(max(namespaces.count, 1)) ~= command.namespace, !namespaces.isEmpty else {
      return .status(.invalidNamespace)
    }
    let namespace = namespaces[Int(command.namespace) - 1]
    do {
      switch opcode {
      case .flush: try namespace.image.flush()
      case .read, .write: return .status(try transfer(command, opcode == .write, namespace))
      case .writeZeroes: return .status(try writeZeroes(command, namespace))
      case .datasetManagement: return .status(try deallocate(command, namespace))
      }
      return .status(.success)
    } catch {
      switch error {
      case .outOfRange: return .status(.outOfRange)
      case .readOnly: return .status(.writeProtected)
      default: return .status(opcode == .read ? .unrecoveredRead : .writeFault)
      }
    }
  }

  /// Whether the blocks are on the namespace.
  private func isOn(_ namespace: SimulatedNVMe.Namespace, _ block: UInt64, _ count: UInt64) -> Bool
  {
    block <= namespace.blockCount && count <= namespace.blockCount - block
  }

  private func transfer(
    _ command: NVMeCommand, _ isWrite: Bool, _ namespace: SimulatedNVMe.Namespace
  ) throws(BlockError) -> NVMeCondition {
    guard isOn(namespace, command.block, UInt64(command.blockCount)) else { return .outOfRange }
    if isWrite, namespace.image.isReadOnly { return .writeProtected }
    let size = namespace.blockByteCount
    let count = command.blockCount * size
    if settings.maximumTransferPower > 0, count > 4096 << settings.maximumTransferPower {
      return .invalidField
    }
    var condition = NVMeCondition.success
    guard let pieces = pieces(command, count, &condition) else { return condition }
    var offset = command.block * UInt64(size)
    for piece in pieces {
      var failure: BlockError?
      let moved: Void? = unsafe windows.with(
        piece.address, piece.byteCount, isWrite ? .read : .write
      ) { bytes in
        do throws(BlockError) {
          if isWrite {
            let source = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes))
            try namespace.image.write(at: offset, from: source)
          } else {
            var target = unsafe MutableRawSpan(_unsafeBytes: bytes)
            try namespace.image.read(at: offset, into: &target)
          }
        } catch {
          failure = error
        }
      }
      if let failure { throw failure }
      guard moved != nil else { return .dataTransferError }
      offset += UInt64(piece.byteCount)
    }
    if isWrite, command.isForced { try namespace.image.flush() }
    return .success
  }

  private func writeZeroes(
    _ command: NVMeCommand, _ namespace: SimulatedNVMe.Namespace
  ) throws(BlockError) -> NVMeCondition {
    guard isOn(namespace, command.block, UInt64(command.blockCount)) else { return .outOfRange }
    if namespace.image.isReadOnly { return .writeProtected }
    let size = UInt64(namespace.blockByteCount)
    try namespace.image.discard(
      at: command.block * size, count: UInt64(command.blockCount) * size)
    return .success
  }

  private func deallocate(
    _ command: NVMeCommand, _ namespace: SimulatedNVMe.Namespace
  ) throws(BlockError) -> NVMeCondition {
    let count = Int(command.word10 & 0xFF) + 1
    var condition = NVMeCondition.success
    guard let pieces = pieces(command, count * NVMeRange.byteCount, &condition) else {
      return condition
    }
    var list: [UInt8] = []
    for piece in pieces {
      guard let bytes = windows.bytes(piece.address, piece.byteCount) else {
        return .dataTransferError
      }
      list += bytes
    }
    // The other attributes are hints that nothing comes of.
    guard command.word11 & 4 != 0 else { return .success }
    if namespace.image.isReadOnly { return .writeProtected }
    for index in 0..<count {
      guard let range = try? NVMeRange(parsing: Array(list.dropFirst(index * NVMeRange.byteCount)))
      else { return .invalidField }
      guard isOn(namespace, range.block, UInt64(range.blockCount)) else { return .outOfRange }
      let size = UInt64(namespace.blockByteCount)
      try namespace.image.discard(
        at: range.block * size, count: UInt64(range.blockCount) * size)
    }
    return .success
  }

  // MARK: - Where data lies

  /// The pieces of memory that a command names, `byteCount` bytes together (NVMe Base 1.4, 4.3); nil with
  /// a condition when it names none.
  private func pieces(
    _ command: NVMeCommand, _ byteCount: Int, _ condition: inout NVMeCondition
  ) -> [(address: UInt64, byteCount: Int)]? {
    if let descriptor = command.descriptor {
      guard descriptor.type == 0 else {
        condition = .invalidDescriptorType
        return nil
      }
      guard Int(descriptor.length) == byteCount else {
        condition = .invalidDataLength
        return nil
      }
      return [(descriptor.address, byteCount)]
    }
    // Words: a PRP's offset is a multiple of 4.
    guard command.data1 & 3 == 0 else {
      condition = .invalidPRPOffset
      return nil
    }
    var result: [(address: UInt64, byteCount: Int)] = []
    let first = min(byteCount, 4096 - Int(command.data1 & 4095))
    result.append((command.data1, first))
    var left = byteCount - first
    guard left > 0 else { return result }
    if left <= 4096 {
      guard command.data2 & 4095 == 0 else {
        condition = .invalidPRPOffset
        return nil
      }
      result.append((command.data2, left))
      return result
    }
    var entry = command.data2
    guard entry & 7 == 0 else {
      condition = .invalidPRPOffset
      return nil
    }
    while left > 0 {
      guard var word = windows.word(entry) else {
        condition = .dataTransferError
        return nil
      }
      // The last entry of a page names the next list when more than one page is left.
      if entry & 4095 == 4088, left > 4096 {
        guard word & 4095 == 0, let next = windows.word(word) else {
          condition = .invalidPRPOffset
          return nil
        }
        entry = word
        word = next
      }
      guard word & 4095 == 0 else {
        condition = .invalidPRPOffset
        return nil
      }
      let piece = min(left, 4096)
      // Pages in one stretch are moved at once.
      if let last = result.last, last.address + UInt64(last.byteCount) == word {
        result[result.count - 1].byteCount += piece
      } else {
        result.append((word, piece))
      }
      left -= piece
      entry &+= 8
    }
    return result
  }

  /// Gives the driver bytes that a command asked for.
  func transfer(_ bytes: [UInt8], to command: NVMeCommand) -> NVMeCondition {
    var condition = NVMeCondition.success
    guard let pieces = pieces(command, bytes.count, &condition) else { return condition }
    var done = 0
    for piece in pieces {
      let moved: Void? = unsafe windows.with(piece.address, piece.byteCount, .write) { target in
        unsafe target.copyBytes(from: bytes[done..<done + piece.byteCount])
      }
      guard moved != nil else { return .dataTransferError }
      done += piece.byteCount
    }
    return .success
  }
}
