// SPDX-License-Identifier: Apache-2.0

// The lawful twins of the programs beside this one: all of this must compile.

import VSC

func sendsWhatItsReadersMaySee(
  _ channel: inout Channel<Encrypted, HostVisible>, _ encrypted: borrowing DMABuffer<Encrypted>,
  _ shared: inout DMABuffer<HostVisible>, _ message: RawSpan
) throws {
  try channel.send(contentsOf: encrypted, byteCount: 16)
  try channel.send(message, dma: &shared, byteCount: 4096, transactionID: 1)
}

func bounces(_ encrypted: borrowing DMABuffer<Encrypted>, _ shared: inout DMABuffer<HostVisible>) {
  shared.copyIn(encrypted.bytes)
}

func takesEachPair(_ opened: consuming OpenedChannel) {
  switch consume opened {
  case .hostVisible(let channel): keep(channel)
  case .encryptedRing(let channel): keep(channel)
  case .encrypted(let channel): keep(channel)
  }
}

func keep<Ring: Visibility, External: Visibility>(_ channel: consuming Channel<Ring, External>) {}

func pools(of device: Device) throws -> Int {
  var pool: DMAPool<HostVisible> = try device.makePool(count: 4, byteCount: 4096)
  var requests = Requests<DMABuffer<HostVisible>>(capacity: 4)
  if let buffer = pool.take() { requests.insert(buffer) }
  return requests.count
}
