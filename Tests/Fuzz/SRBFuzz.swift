// SPDX-License-Identifier: Apache-2.0

/// What a guest can send to the storage device: a byte that picks the stage and the version, then
/// packets. Each has a byte for the operation, one for its form, two for the length of its data,
/// a command of 16 bytes, and the data.
func fuzzSRB(_ input: RawSpan) throws {
  var reader = WireReader(input, name: "fuzzer's input")
  let start = try reader.read(UInt8.self)
  let controller = try makeController()
  let nexus = SCSINexus()
  if start & 0x80 != 0 { controller.join(nexus) }
  let target = SCSITarget(controller, nexus: nexus)
  let versions: [StorageVersion] = [.windowsVista, .windows7, .windows8, .windows81]
  let version = versions[Int(start & 3)]
  var session = StorVSPSession(maximumSubchannels: 2)
  if start & 4 != 0 {
    for operation: StorageOperation in [
      .beginInitialization, .queryProtocolVersion, .queryProperties, .endInitialization,
    ] {
      var packet = [UInt8](repeating: 0, count: 64)
      packet[0] = UInt8(operation.rawValue)
      packet[12] = UInt8(truncatingIfNeeded: version.rawValue)
      packet[13] = UInt8(truncatingIfNeeded: version.rawValue >> 8)
      answer(packet, [], &session, target)
    }
  }
  for _ in 0..<64 {
    let (operation, form) = (try reader.read(UInt8.self), try reader.read(UInt8.self))
    let dataCount = Int(try reader.read(UInt16.self)) % 8193
    var packet: [UInt8] = [form & 1 == 0 ? 3 : operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    packet += [52, 0, 0, 0, 0, 0, 0, form >> 5 & 3, 16, 20, 1, 0]
    // The request may claim less than there is, or all.
    let claimed = form & 2 == 0 ? dataCount : dataCount / 2
    packet += [UInt8(claimed & 0xFF), UInt8(claimed >> 8), 0, 0]
    let command = try reader.take(16)
    unsafe command.withUnsafeBytes { unsafe packet.append(contentsOf: $0) }
    packet += [UInt8](repeating: 0, count: 20)
    // As raw bytes instead.
    if form & 0x0C == 0x0C { packet = Array(packet.suffix(Int(operation) % 65)) }
    var data = [UInt8](repeating: 0, count: dataCount)
    let given = try reader.take(min(dataCount, reader.remaining))
    unsafe given.withUnsafeBytes { bytes in
      for index in 0..<bytes.count { unsafe data[index] = bytes[index] }
    }
    answer(packet, data, &session, target)
  }
}

private func makeController() throws -> SCSIController {
  var controller = SCSIController(maximumTransferBytes: 8192)
  let identity = GUID()
  _ = controller.attach(
    try SCSIDisk(.inMemory(byteCount: 65536), identity: identity), lun: 0)
  _ = controller.attach(
    try SCSIDisk(.inMemory(byteCount: 65536), blockSize: .bytes4096, identity: identity), lun: 1)
  _ = controller.attach(
    try SCSIDisk(.inMemory(byteCount: 512, readOnly: true), identity: identity), lun: 2)
  return controller
}

private func answer(
  _ packet: [UInt8], _ data: [UInt8], _ session: inout StorVSPSession,
  _ target: borrowing SCSITarget
) {
  var memory = data
  var completion = StorVSPSession.Completion(repeating: 0xEE)
  let byteCount = memory.count
  var span = memory.mutableSpan
  var external = ContiguousExternalData(unsafe span.mutableBytes)
  do throws(StorVSPError) {
    let result = try session.handle(
      unsafe packet.span.bytes, isTransactional: true, data: &external, target: target,
      completion: &completion)
    guard result.byteCount <= 64, completion[0] == 1 else { fatalError("no completion") }
    guard packet.first == 3, packet.count >= 64, session.stage == .ready,
      completion[8] == 0, completion[14] == 1
    else { return }
    // A success never moves more than there was.
    var moved = 0
    for index in (24..<28).reversed() { moved = moved << 8 | Int(completion[index]) }
    if moved > byteCount { fatalError("moved \(moved) of \(byteCount)") }
  } catch {
    if error.description.isEmpty { fatalError("an error without a text") }
  }
}

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  try? unsafe fuzzSRB(buffer.bytes)
  return 0
}
