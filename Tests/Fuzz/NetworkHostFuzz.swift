// SPDX-License-Identifier: Apache-2.0

// The network device of the host, with a guest that is made of the fuzzer's bytes: see
// Tests/SimulatedHostTests/Network/HostileGuest.swift for the guest, and for what must hold.

nonisolated(unsafe) private let guest = try? HostileGuest()

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  do {
    _ = try unsafe guest?.play([UInt8](buffer))
  } catch let error as HostileGuest.Broken {
    fatalError(error.reason)
  } catch {
    // A script that no ring takes.
  }
  return 0
}
