// SPDX-License-Identifier: Apache-2.0

// The NVMe driver's end, with a controller that is made of the fuzzer's bytes: see
// Tests/NVMeTests/HostileNVMe.swift for the controller, and for what must hold.

private let function = HostileFunction()

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  _ = unsafe driveHostile([UInt8](buffer), function)
  return 0
}
