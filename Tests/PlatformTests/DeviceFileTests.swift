// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import SystemPackage
import Testing

@Suite struct DeviceFileTests {
  /// What `DeviceFile.lowestDescriptor` stands on: the channel of a killed process is closed before
  /// its memory is free. In a process of its own: children of other tests would have these pipes too.
  @Test func aKilledProcessLosesItsHighestDescriptorFirst() async {
    await #expect(processExitsWith: .success) { try killAProcessAndLook() }
  }

  @Test func opensAboveItsLimit() throws {
    let file = try DeviceFile(path: "/dev/null")
    #expect(file.rawValue >= DeviceFile.lowestDescriptor)
    #expect(throws: Errno.noSuchFileOrDirectory) {
      let missing = try DeviceFile(path: "/dev/missing")
      Issue.record("opened as \(missing.rawValue)")
    }
  }

  @Test func theLockKeepsASecondOneOut() throws {
    let path = FileManager.default.temporaryDirectory
      .appending(path: "vmbus-lock-\(UInt64.random(in: 0...UInt64.max))").path
    _ = FileManager.default.createFile(atPath: path, contents: nil)
    defer { try? FileManager.default.removeItem(atPath: path) }
    do {
      let first = try DeviceFile(path: path)
      try first.lock()
      let second = try DeviceFile(path: path)
      #expect(throws: Errno.wouldBlock) { try second.lock() }
    }
    let third = try DeviceFile(path: path)
    // A child that another test starts has the first one too, until its program runs.
    for _ in 0..<30_000 where (try? third.lock()) == nil { usleep(1000) }
    try third.lock()
  }
}

private func killAProcessAndLook() throws {
  let (memory, device) = (Pipe(), Pipe())
  let epoll = try Epoll()
  try epoll.add(memory.fileHandleForReading.fileDescriptor, token: 1)
  try epoll.add(device.fileHandleForReading.fileDescriptor, token: 2)
  let shell = Process()
  shell.executableURL = URL(filePath: "/bin/bash")
  let start = Pipe()
  shell.standardInput = start
  shell.standardOutput = memory
  shell.standardError = device
  let highest = DeviceFile.lowestDescriptor
  shell.arguments = ["-c", "exec 20>&1 \(highest)>&2 >/dev/null 2>&1; read; kill -9 $$"]
  try shell.run()
  try memory.fileHandleForWriting.close()
  try device.fileHandleForWriting.close()
  // Only now: else the ends that were just closed here may have been the last ones.
  try start.fileHandleForWriting.write(contentsOf: Data("\n".utf8))
  shell.waitUntilExit()
  // The system tells of the hang-ups in the order in which they came.
  var order: [UInt64] = []
  try epoll.wait(milliseconds: 5000) { order.append($0) }
  #expect(order == [2, 1])
}
