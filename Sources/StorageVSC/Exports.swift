// SPDX-License-Identifier: Apache-2.0

// Who uses the driver uses its disks.
@_exported public import BlockStorage
