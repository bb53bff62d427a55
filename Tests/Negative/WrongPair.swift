// SPDX-License-Identifier: Apache-2.0

// What was opened host-visible is not taken for encrypted.
// expect-error: cannot convert return expression of type 'Channel<HostVisible, HostVisible>' to return type 'Channel<Encrypted, Encrypted>'

import VSC

func leak(_ opened: consuming OpenedChannel) -> Channel<Encrypted, Encrypted>? {
  switch consume opened {
  case .hostVisible(let channel): return channel
  default: return nil
  }
}
