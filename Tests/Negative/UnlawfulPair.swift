// SPDX-License-Identifier: Apache-2.0

// External memory encrypted under a host-visible ring does not exist.
// expect-error: cannot convert value of type 'Channel<HostVisible, Encrypted>' to expected argument type 'Channel<HostVisible, HostVisible>'

import VSC

func leak(_ channel: consuming Channel<HostVisible, Encrypted>) -> OpenedChannel {
  .hostVisible(channel)
}
