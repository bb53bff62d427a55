// SPDX-License-Identifier: Apache-2.0

extension Channel {
  /// Sends a structure of the device's protocol in-band.
  ///
  /// - Parameter message: of at most 256 bytes on the wire.
  @inlinable
  public mutating func send<Message: WireLayout>(
    message: Message, transactionID: UInt64 = 0, completionRequested: Bool = false
  ) throws(ChannelError) {
    let count = Message.byteCount
    var bytes = InlineArray<256, UInt8>(repeating: 0)
    guard count <= bytes.count else {
      throw .ring(.packetTooLarge(byteCount: count, limit: bytes.count))
    }
    var elements = bytes.mutableSpan
    // Safe: any bytes are a value of this array.
    var target = unsafe elements.mutableBytes
    message.write(into: &target)
    try send(
      target.bytes.extracting(first: count), transactionID: transactionID,
      completionRequested: completionRequested)
  }
}
