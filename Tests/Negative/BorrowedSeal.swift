// SPDX-License-Identifier: Apache-2.0

// Nor does he with the seal of another.
// expect-error: cannot convert return expression of type 'VisibilitySeal<Encrypted>' to return type 'VisibilitySeal<Mine>'

import VSC

enum Mine: Visibility {
  static var seal: VisibilitySeal<Mine> { Encrypted.seal }
}
