// SPDX-License-Identifier: Apache-2.0

import Glibc

func removeFile(_ path: String) { _ = unsafe unlink(path) }
