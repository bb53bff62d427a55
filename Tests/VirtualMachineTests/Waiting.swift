// SPDX-License-Identifier: Apache-2.0

import CLinux

/// A test file that imports the C library does not compile.
func sleepForTest(milliseconds: UInt32) { vmbus_sleep_milliseconds(milliseconds) }
