// SPDX-License-Identifier: Apache-2.0

import Glibc

func makePipe(_ path: String) { _ = unsafe mkfifo(path, 0o600) }
