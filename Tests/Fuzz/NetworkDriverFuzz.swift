// SPDX-License-Identifier: Apache-2.0

// The network driver's end, with a NetVSP that is made of the fuzzer's bytes: see
// Tests/NetworkVSCTests/HostileNetwork.swift for the host and for what must hold.

import Platform

private let worker = try? Worker(.init(name: "network-fuzz", spinRounds: 0))

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  guard let worker else { return -1 }
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  _ = unsafe driveHostileNetwork([UInt8](buffer), worker)
  return 0
}
