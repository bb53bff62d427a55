// SPDX-License-Identifier: Apache-2.0
//
// What Swift calls: nbdkit's own functions are variadic.
#pragma once

/// Tells nbdkit why a callback fails: one line for its log, and an errno for the NBD client.
void vsc_nbd_report(int error, const char *_Nonnull message);
