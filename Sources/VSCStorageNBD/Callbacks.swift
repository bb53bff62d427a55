// SPDX-License-Identifier: Apache-2.0

import CNBDKitPlugin
import Glibc
import StorageVSC

// What nbdkit calls, through plugin.c. Each returns -1 after it has reported an error.

@c(vsc_nbd_config)
public func config(_ key: UnsafePointer<CChar>, _ value: UnsafePointer<CChar>) -> CInt {
  unsafe export.configure(key: String(cString: key), value: String(cString: value))
  return 0
}

@c(vsc_nbd_config_complete)
public func configComplete() -> CInt { reporting { try export.checkConfiguration() } }

@c(vsc_nbd_start)
public func start() -> CInt { reporting { try export.open() } }

@c(vsc_nbd_stop)
public func stop() { export.close() }

@c(vsc_nbd_size)
public func size() -> Int64 { Int64(clamping: export.disk?.byteCount ?? 0) }

@c(vsc_nbd_can_write)
public func canWrite() -> CInt {
  export.disk.map { $0.information.disk.isReadOnly ? 0 : 1 } ?? 0
}

@c(vsc_nbd_can_trim)
public func canTrim() -> CInt {
  export.disk.map { $0.information.disk.provisioning.canDiscard ? 1 : 0 } ?? 0
}

@c(vsc_nbd_can_fast_zero)
public func canFastZero() -> CInt {
  export.disk.map { $0.information.disk.provisioning.canFill ? 1 : 0 } ?? 0
}

/// NBD wants a power of two, 512 to 32 MiB.
@c(vsc_nbd_block_size)
public func blockSize(_ preferred: UnsafeMutablePointer<UInt32>) {
  let size = export.disk?.information.disk.geometry.physicalBlockByteCount ?? 4096
  unsafe preferred.pointee = UInt32(max(4096, size))
}

// Safe: nbdkit's buffers are as long as it says, and stay until the callback returns.

@c(vsc_nbd_read)
public func read(_ bytes: UnsafeMutableRawPointer, _ count: UInt32, _ offset: UInt64) -> CInt {
  reporting {
    try unsafe export.openDisk.read(
      at: offset, into: UnsafeMutableRawBufferPointer(start: bytes, count: Int(count)))
  }
}

@c(vsc_nbd_write)
public func write(
  _ bytes: UnsafeRawPointer, _ count: UInt32, _ offset: UInt64, _ forced: CInt
) -> CInt {
  reporting {
    try unsafe export.openDisk.write(
      at: offset, from: UnsafeRawBufferPointer(start: bytes, count: Int(count)),
      forced: forced != 0)
  }
}

@c(vsc_nbd_flush)
public func flush() -> CInt { reporting { try export.openDisk.flush() } }

/// A hint, of which only whole blocks can be taken.
@c(vsc_nbd_trim)
public func trim(_ count: UInt32, _ offset: UInt64, _ forced: CInt) -> CInt {
  reporting {
    try export.openDisk.discard(at: offset, count: UInt64(count))
    if forced != 0 { try export.openDisk.flush() }
  }
}

@c(vsc_nbd_zero)
public func zero(
  _ count: UInt32, _ offset: UInt64, _ mayTrim: CInt, _ forced: CInt, _ fast: CInt
) -> CInt {
  reporting {
    try export.openDisk.writeZeroes(
      at: offset, count: UInt64(count), mayUnmap: mayTrim != 0, forced: forced != 0,
      onlyFast: fast != 0)
  }
}

private func reporting(_ body: () throws -> Void) -> CInt {
  do {
    try body()
    return 0
  } catch {
    unsafe vsc_nbd_report(errorNumber(error), "\(error)")
    return -1
  }
}
