// SPDX-License-Identifier: Apache-2.0

// Measures the ring. Each line of output is a row: suite, name, unit, value, baseline and the
// baseline's value, with tabs between; `scripts/bench` makes tables and JSON of them.

import Glibc
import RingTwin

func row(_ name: String, _ unit: String, _ value: Double, _ baseline: String, _ other: Double) {
  print("ring", name, unit, value, baseline, other, separator: "\t")
}

func fail(_ error: any Error) -> Never {
  let text = "ring-bench: \(error)\n"
  _ = unsafe write(2, text, text.utf8.count)
  exit(1)
}

func median(_ values: [Double]) -> Double {
  let sorted = values.sorted()
  return sorted.isEmpty ? .nan : sorted[sorted.count / 2]
}

/// Time for each packet: rounds take turns, so that what else the machine does hits all alike.
func measureTime(rounds: Int, nanoseconds: Double) throws {
  guard pin_to_cpu(0) else { throw Failure.usage("can't pin a thread to a processor") }
  try Case.each { this in
    let rough = try this.twin(this.batch * 64)
    let packets = UInt64(max(1, nanoseconds / rough / Double(this.batch))) * this.batch
    _ = try this.swift(packets)
    _ = this.bare(packets)
    var swift: [Double] = []
    var twin: [Double] = []
    var bare: [Double] = []
    var toTwin: [Double] = []
    var toBare: [Double] = []
    for round in 0..<rounds {
      let first = round % 2 == 0 ? try this.swift(packets) : try this.twin(packets)
      let second = round % 2 == 0 ? try this.twin(packets) : try this.swift(packets)
      swift.append(round % 2 == 0 ? first : second)
      twin.append(round % 2 == 0 ? second : first)
      bare.append(this.bare(packets))
      toTwin.append(swift[round] / twin[round])
      toBare.append(swift[round] / bare[round])
    }
    // The median of the ratios, not the ratio of the medians: two neighbours share their noise.
    let value = median(swift)
    row("time, \(this.name)", "ns/packet", value, "C twin", value / median(toTwin))
    row("time, \(this.name)", "ns/packet", value, "two memcpy", value / median(toBare))
  }
}

/// Runs each case between calls of `mark`, at which the profiler writes its counts down: for each
/// line that is printed there are three, of which the second holds what the Swift ring took
/// since the first, and the third what the twin took.
func countInstructions(packets: UInt64) throws {
  try Case.each { this in
    let packets = packets / this.batch * this.batch
    mark()
    _ = try this.swift(packets)
    mark()
    _ = try this.twin(packets)
    mark()
    print(this.name, packets, separator: "\t")
  }
}

do {
  let arguments = CommandLine.arguments.dropFirst()
  switch (arguments.first, arguments.count) {
  case ("time", 1): try measureTime(rounds: 201, nanoseconds: 3e6)
  case ("time-quick", 1): try measureTime(rounds: 41, nanoseconds: 2e6)
  case ("threads", 1): try measureThreads(rounds: 21, scale: 4)
  case ("threads-quick", 1): try measureThreads(rounds: 11, scale: 1)
  case ("packets", 1): try measureStream([64, 1500], rounds: 11, scale: 1)
  case ("count", 2):
    guard let packets = UInt64(arguments.last ?? ""), packets >= 32 else { fallthrough }
    try countInstructions(packets: packets)
  default:
    throw Failure.usage(
      "usage: ring-bench time|time-quick|threads|threads-quick|packets|count PACKETS")
  }
} catch {
  fail(error)
}
