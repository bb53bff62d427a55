// SPDX-License-Identifier: Apache-2.0

// A paravisor before a host that is made of the fuzzer's bytes, and a guest of it: see
// Tests/SimulatedHostTests/Relay for the host, and for what must hold.

nonisolated(unsafe) private let machine = try? LiedToParavisor()

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  do {
    _ = try unsafe machine?.play([UInt8](buffer))
  } catch let error as LiedToParavisor.Broken {
    fatalError(error.reason)
  } catch {
    // The host has thrown the paravisor out.
  }
  return 0
}
