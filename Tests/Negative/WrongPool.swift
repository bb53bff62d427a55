// SPDX-License-Identifier: Apache-2.0

// A pool gives buffers of its own visibility.
// expect-error: cannot convert return expression of type 'DMABuffer<Encrypted>?' to return type 'DMABuffer<HostVisible>?'

import VSC

func leak(_ pool: inout DMAPool<Encrypted>) -> DMABuffer<HostVisible>? {
  pool.take()
}
