// SPDX-License-Identifier: Apache-2.0

// Bytes do not outlive the buffer that they lie in.
// expect-error: noncopyable 'buffer' cannot be consumed when captured by an escaping closure or borrowed by a non-Escapable type

import VSC

func escape(_ pool: inout DMAPool<HostVisible>) -> Int {
  guard let buffer = pool.take() else { return 0 }
  let bytes = buffer.bytes
  _ = consume buffer
  return bytes.byteCount
}
