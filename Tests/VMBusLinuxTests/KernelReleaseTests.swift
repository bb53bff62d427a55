// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBusLinux

@Suite struct KernelReleaseTests {
  @Test(arguments: [
    ("6.12.107-cloud-amd64", 6, 12), ("7.2-rc1", 7, 2), ("6.1.0", 6, 1), ("5.15+", 5, 15),
  ])
  func isRead(_ text: String, _ major: Int, _ minor: Int) {
    #expect(KernelRelease(text) == KernelRelease(major, minor))
  }

  @Test(arguments: ["", "6", "six.twelve", "6.", "6.x"]) func isRefused(_ text: String) {
    #expect(KernelRelease(text) == nil)
  }

  @Test func tenComesAfterNine() {
    #expect(KernelRelease(6, 9) < KernelRelease(6, 10))
    #expect(KernelRelease(6, 18) < KernelRelease(7, 0))
  }
}
