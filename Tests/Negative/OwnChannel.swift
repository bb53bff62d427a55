// SPDX-License-Identifier: Apache-2.0

// Only an open makes channels, so nobody chooses the types himself.
// expect-error: 'Channel<Ring, External>' initializer is inaccessible due to 'internal' protection level

import VSC

func leak(
  _ raw: consuming RawChannel, _ parameters: ChannelParameters
) throws -> Channel<HostVisible, Encrypted> {
  try Channel<HostVisible, Encrypted>(raw, parameters)
}
