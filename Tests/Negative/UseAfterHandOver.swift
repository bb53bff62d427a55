// SPDX-License-Identifier: Apache-2.0

// A buffer that the device has is out of its driver's hands.
// expect-error: 'buffer' used after consume

import VSC

func touch(
  _ requests: inout Requests<DMABuffer<HostVisible>>, _ pool: inout DMAPool<HostVisible>
) {
  guard let buffer = pool.take() else { return }
  requests.insert(buffer)
  _ = buffer.byteCount
}
