// SPDX-License-Identifier: Apache-2.0

// The storage driver's end, with a StorVSP that is made of the fuzzer's bytes: see
// Tests/StorageVSCTests/HostileStorVSP.swift for the host, HostileDriver.swift for what must hold.

nonisolated(unsafe) private let memory = HostileMemory()

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  _ = unsafe driveHostile([UInt8](buffer), memory)
  return 0
}
