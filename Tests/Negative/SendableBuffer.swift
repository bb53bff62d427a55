// SPDX-License-Identifier: Apache-2.0

// Nor does it pass as a value for any thread.
// expect-error: type 'DMABuffer<HostVisible>' does not conform to the 'Sendable' protocol

import VSC

func anyThread<Value: Sendable & ~Copyable>(_ value: borrowing Value) {}

func send(_ buffer: borrowing DMABuffer<HostVisible>) {
  anyThread(buffer)
}
