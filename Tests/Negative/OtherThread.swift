// SPDX-License-Identifier: Apache-2.0

// A buffer stays with its pool's worker.
// expect-error: sending value of non-Sendable type 'Elsewhere' risks causing data races [#SendingRisksDataRace]

import VSC

struct Elsewhere: Pollable, ~Copyable {
  var buffer: DMABuffer<HostVisible>
  mutating func poll(budget: Int) -> Int? { buffer.byteCount }
  mutating func arm() -> Bool { false }
  mutating func disarm() {}
}

func send(_ pool: inout DMAPool<HostVisible>, to other: Worker) {
  guard let buffer = pool.take() else { return }
  _ = other.attach(Elsewhere(buffer: buffer))
}
