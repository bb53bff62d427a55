// SPDX-License-Identifier: Apache-2.0

// Private memory may not be sent in a ring that the host reads.
// expect-error: cannot convert value of type 'DMABuffer<Encrypted>' to expected argument type 'DMABuffer<HostVisible>'

import VSC

func leak<External>(
  _ channel: inout Channel<HostVisible, External>, _ secret: borrowing DMABuffer<Encrypted>
) throws {
  try channel.send(contentsOf: secret, byteCount: 16)
}
