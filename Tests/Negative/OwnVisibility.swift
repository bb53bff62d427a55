// SPDX-License-Identifier: Apache-2.0

// No author adds a third visibility.
// expect-error: 'VisibilitySeal<Memory>' initializer is inaccessible due to 'internal' protection level

import VSC

enum Mine: Visibility {
  static var seal: VisibilitySeal<Mine> { VisibilitySeal(memory: .hostVisible) }
}
