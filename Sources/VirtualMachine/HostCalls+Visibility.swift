// SPDX-License-Identifier: Apache-2.0

import Logging
import SimulatedLink
import VMBus

// What is visible of an isolated machine: its guest says so, and its host is told.

extension HostCalls {
  /// The visibility call, which came through the hypercall page of an isolated machine.
  ///
  /// - Returns: what the guest gets in its register.
  func changeVisibility(input: UInt64, parameter: UInt64) -> UInt64 {
    var done = 0
    do throws(HypercallRefusal) {
      let call = try VisibilityHypercall.decode(input: input, parameter: parameter).get()
      done = call.repetitions.lowerBound
      guard let bytes = memory.read(call.inputAddress, count: call.inputByteCount) else {
        throw HypercallRefusal(.invalidParameter)
      }
      let (isVisible, numbers) = try call.parse(bytes).get()
      let boundary = MachineLayout.boundary / 4096
      let pages = numbers[call.repetitions].map { $0 & ~boundary }
      for run in Self.runs(pages) {
        try change(run, isVisible)
        done += run.count
      }
      return VisibilityHypercall.result(.success, repetitions: done)
    } catch {
      logger.warning(
        "visibility not changed: \(error.status)",
        metadata: ["input": "0x\(String(input, radix: 16))", "done": "\(done)"])
      return VisibilityHypercall.result(error.status, repetitions: done)
    }
  }

  /// Pages whose numbers follow one another are told of at once.
  static func runs(_ pages: [GPN]) -> [Range<GPN>] {
    var runs: [Range<GPN>] = []
    for page in pages {
      // A number that has none behind it can't be a page.
      let (end, overflow) = page.addingReportingOverflow(1)
      if let last = runs.last, last.upperBound == page, !overflow {
        runs[runs.count - 1] = last.lowerBound..<end
      } else {
        runs.append(overflow ? page - 1..<page : page..<end)
      }
    }
    return runs
  }

  private func change(_ pages: Range<GPN>, _ isVisible: Bool) throws(HypercallRefusal) {
    guard pages.allSatisfy({ memory.isVisible($0) != nil }) else {
      throw HypercallRefusal(.invalidParameter)
    }
    // The host sees what is zero already, and nothing goes before the host has let go of it.
    if isVisible { for page in pages { memory.setVisible(page, true) } }
    do throws(LinkError) {
      try link?.setVisibility(
        firstPage: pages.lowerBound, pageCount: pages.count, isHostVisible: isVisible)
    } catch .refused(let status) {
      throw HypercallRefusal(status)
    } catch {
      gone()
      throw HypercallRefusal(.insufficientBuffers)
    }
    if !isVisible { for page in pages { memory.setVisible(page, false) } }
    logger.debug(
      "\(pages.count) pages \(isVisible ? "host-visible" : "private")",
      metadata: ["first": "0x\(String(pages.lowerBound, radix: 16))"])
  }
}
