// SPDX-License-Identifier: Apache-2.0

// Nor does it by a cast.
// expect-error: noncopyable types cannot be conditionally cast

import VSC

func leak(_ secret: consuming DMABuffer<Encrypted>) -> DMABuffer<HostVisible>? {
  secret as? DMABuffer<HostVisible>
}
