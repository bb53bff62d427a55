// SPDX-License-Identifier: Apache-2.0

import Glibc

// Apart, since a file with tests can't import the C library.
func unlinkFile(_ path: String) { _ = unsafe unlink(path) }
