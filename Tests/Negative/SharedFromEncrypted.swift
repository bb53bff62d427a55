// SPDX-License-Identifier: Apache-2.0

// An encrypted buffer does not become a shared one.
// expect-error: cannot convert return expression of type 'DMABuffer<Encrypted>' to return type 'DMABuffer<HostVisible>'

import VSC

func leak(_ secret: consuming DMABuffer<Encrypted>) -> DMABuffer<HostVisible> {
  secret
}
