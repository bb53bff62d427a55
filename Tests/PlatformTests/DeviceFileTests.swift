// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import SystemPackage
import Testing

@Suite struct DeviceFileTests {
  /// What `DeviceFile.lowestDescriptor` stands on: the channel of a killed process is closed before
  /// its memory is free.
  @Test func aKilledProcessLosesItsHighestDescriptorFirst() throws {
    let directory = FileManager.default.temporaryDirectory
      .appending(path: "vmbus-order-\(UInt64.random(in: 0...UInt64.max))").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let (memory, device) = (directory + "/memory", directory + "/device")
    makePipe(memory)
    makePipe(device)
    let memoryEnd = unsafe OwnedDescriptor(
      owning: try FileDescriptor.open(memory, .readOnly, options: .nonBlocking).rawValue)
    let deviceEnd = unsafe OwnedDescriptor(
      owning: try FileDescriptor.open(device, .readOnly, options: .nonBlocking).rawValue)
    let epoll = try Epoll()
    try epoll.add(memoryEnd.rawValue, token: 1)
    try epoll.add(deviceEnd.rawValue, token: 2)
    let shell = Process()
    shell.executableURL = URL(filePath: "/bin/bash")
    let highest = DeviceFile.lowestDescriptor
    shell.arguments = ["-c", "exec 20>\(memory) \(highest)>\(device); kill -9 $$"]
    try shell.run()
    shell.waitUntilExit()
    // The system tells of the hang-ups in the order in which they came.
    var order: [UInt64] = []
    try epoll.wait(milliseconds: 5000) { order.append($0) }
    #expect(order == [2, 1])
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
    try third.lock()
  }
}
