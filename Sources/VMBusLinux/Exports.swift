// SPDX-License-Identifier: Apache-2.0

// Who asks for devices is told why one can't be used, in the words of this module.
@_exported public import LinuxDevices
