// SPDX-License-Identifier: Apache-2.0

import Platform
import SystemPackage

/// A box for an eventfd, since arrays and dictionaries hold no noncopyable values.
final class EventBox: Sendable {
  let event: EventDescriptor

  init() throws(Errno) { event = try EventDescriptor() }

  init(_ owned: consuming OwnedDescriptor) { event = EventDescriptor(owned) }
}
