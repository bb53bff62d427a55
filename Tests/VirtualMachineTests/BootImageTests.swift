// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct BootImageTests {
}
