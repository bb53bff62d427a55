// SPDX-License-Identifier: Apache-2.0

// The memory below a buffer cannot be wrapped anew.
// expect-error: 'DMABuffer<Memory>' initializer is inaccessible due to 'internal' protection level
// expect-error: 'core' is inaccessible due to 'internal' protection level
// expect-error: 'place' is inaccessible due to 'internal' protection level

import VSC

func leak(_ secret: consuming DMABuffer<Encrypted>) -> DMABuffer<HostVisible> {
  DMABuffer<HostVisible>(core: secret.core, secret.place)
}
