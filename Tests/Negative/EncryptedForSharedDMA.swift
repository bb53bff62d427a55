// SPDX-License-Identifier: Apache-2.0

// Private memory may not be given to a device of the host.
// expect-error: cannot convert value of type 'DMABuffer<Encrypted>' to expected argument type 'DMABuffer<HostVisible>'

import VSC

func leak<Ring>(
  _ channel: inout Channel<Ring, HostVisible>, _ secret: inout DMABuffer<Encrypted>,
  _ message: RawSpan
) throws {
  try channel.send(message, dma: &secret, byteCount: 4096, transactionID: 1)
}
