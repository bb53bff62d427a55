// SPDX-License-Identifier: Apache-2.0

// A disk's errors are told in the words of its protocol.
@_exported public import NVMeProtocol
@_exported public import StorageProtocol
