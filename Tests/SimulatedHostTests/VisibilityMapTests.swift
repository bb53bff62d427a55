// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import SimulatedHost

@Suite struct VisibilityMapTests {
  @Test func allPagesStartPrivate() {
    let map = VisibilityMap(pageCount: 200)
    for page: UInt64 in [0, 63, 64, 199] { #expect(!map.isVisible(page)) }
    #expect(map.run(from: 0, visible: false) == 64)
    map.deallocate()
  }

  /// Over the borders of words, and back again.
  @Test(arguments: [0..<1, 63..<65, 10..<130, 64..<128, 199..<200] as [Range<UInt64>])
  func pagesChangeAndNoOthers(_ pages: Range<UInt64>) {
    let map = VisibilityMap(pageCount: 200)
    map.set(pages, visible: true)
    for page: UInt64 in 0..<200 { #expect(map.isVisible(page) == pages.contains(page)) }
    map.set(pages, visible: false)
    for page: UInt64 in 0..<200 { #expect(!map.isVisible(page)) }
    map.deallocate()
  }

  /// As far as pages are alike, and never beyond a word.
  @Test func runsEndWherePagesDiffer() {
    let map = VisibilityMap(pageCount: 128)
    map.set(5..<9, visible: true)
    #expect(map.run(from: 0, visible: false) == 5)
    #expect(map.run(from: 5, visible: true) == 4)
    #expect(map.run(from: 7, visible: true) == 2)
    #expect(map.run(from: 7, visible: false) == 0)
    #expect(map.run(from: 9, visible: false) == 55)
    map.set(0..<128, visible: true)
    #expect(map.run(from: 60, visible: true) == 4)
    map.deallocate()
  }

  @Test func whatLiesBeyondIsOfNoKind() {
    let map = VisibilityMap(pageCount: 64)
    #expect(map.run(from: 64, visible: true) == 0)
    #expect(map.run(from: .max, visible: false) == 0)
    map.deallocate()
  }
}
