// SPDX-License-Identifier: Apache-2.0

// A buffer has one owner.
// expect-error: 'buffer' is borrowed and cannot be consumed

import VSC

func copy(_ buffer: borrowing DMABuffer<HostVisible>) -> DMABuffer<HostVisible> {
  buffer
}
