// SPDX-License-Identifier: Apache-2.0

/// Parses control messages: a byte that picks the version, four of feature flags, the message.
func fuzzMessages(_ input: RawSpan) {
  var reader = WireReader(input, name: "fuzzer's input")
  do {
    let pick = Int(try reader.read(UInt8.self))
    let features = FeatureFlags(rawValue: try reader.read(UInt32.self))
    let versions = ProtocolVersion.supported
    let version = pick % (versions.count + 1) == 0 ? nil : versions[pick % (versions.count + 1) - 1]
    let message = try ControlMessage(parsing: reader.rest, version: version, features: features)
    // What was parsed can be told, and posted again.
    if "\(message)".isEmpty { fatalError("a message without a text") }
    let again = OutgoingMessage(message)
    if again.count > OutgoingMessage.maximumByteCount { fatalError("too long") }
  } catch {
    if "\(error)".isEmpty { fatalError("an error without a text") }
  }
}

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  unsafe fuzzMessages(buffer.bytes)
  return 0
}
