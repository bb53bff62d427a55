// SPDX-License-Identifier: Apache-2.0

import Platform
import ProgramSupport
import SystemPackage
import Testing

/// Over real sockets, as systemd's are.
struct ServiceManagerTests {
  private func make(_ variables: [String: String]) -> ServiceManager? {
    ServiceManager { variables[$0] }
  }

  @Test func nobodyIsThereWithoutASocket() {
    #expect(make([:]) == nil)
    #expect(make(["NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000"]) == nil)
  }

  @Test func newsGoToAPath() async throws {
    let place = TemporarySocketPath()
    let socket = try DatagramSocket(at: place.path)
    let manager = try #require(make(["NOTIFY_SOCKET": place.path]))
    manager.tell(.ready, .status("vsc0: link up"))
    #expect(await socket.receive() == "READY=1\nSTATUS=vsc0: link up")
    manager.tell(.alive)
    manager.tell(.stopping)
    #expect(await socket.receive() == "WATCHDOG=1")
    #expect(await socket.receive() == "STOPPING=1")
  }

  @Test func newsGoToAnAbstractName() async throws {
    let name = "@vmbus-notify-\(ownProcess)-\(UInt64.random(in: 0...UInt64.max))"
    let socket = try DatagramSocket(at: name)
    let manager = try #require(make(["NOTIFY_SOCKET": name]))
    manager.tell(.ready)
    #expect(await socket.receive() == "READY=1")
  }

  @Test func aStatusIsOneLine() async throws {
    let place = TemporarySocketPath()
    let socket = try DatagramSocket(at: place.path)
    let manager = try #require(make(["NOTIFY_SOCKET": place.path]))
    manager.tell(.status("gone\r\nREADY=1\nFDSTORE=1"))
    #expect(await socket.receive() == "STATUS=gone READY=1 FDSTORE=1")
  }

  @Test(arguments: [
    ("/nowhere/at/all", Errno.noSuchFileOrDirectory), ("relative", .invalidArgument),
    ("@", .invalidArgument), ("/" + String(repeating: "x", count: 108), .fileNameTooLong),
  ])
  func aManagerThatCanNotBeReached(_ name: String, _ error: Errno) throws {
    let manager = try #require(make(["NOTIFY_SOCKET": name]))
    #expect(throws: error) { try manager.send([.ready]) }
    // A driver goes on.
    manager.tell(.ready)
  }

  @Test func theWatchdogIsForOneProcessAndItsChildren() {
    func watchdog(_ process: String?, _ microseconds: String?) -> Duration? {
      var variables = ["NOTIFY_SOCKET": "@x"]
      variables["WATCHDOG_PID"] = process
      variables["WATCHDOG_USEC"] = microseconds
      return make(variables)?.watchdog
    }
    #expect(watchdog(nil, "30000000") == .seconds(30))
    #expect(watchdog("\(ownProcess)", "30000000") == .seconds(30))
    #expect(watchdog("\(parentProcess)", "1") == .microseconds(1))
    #expect(watchdog("0", "30000000") == nil)
    #expect(watchdog("x", "30000000") == nil)
    for bad in [nil, "", "0", "-1", "soon", "99999999999999999999"] {
      #expect(watchdog(nil, bad) == nil)
    }
  }

  @Test func itIsAliveWhileAllWorkersAnswer() async throws {
    let place = TemporarySocketPath()
    let socket = try DatagramSocket(at: place.path)
    let manager = try #require(make(["NOTIFY_SOCKET": place.path, "WATCHDOG_USEC": "20000"]))
    let workers = [try Worker(.init(name: "first")), try Worker(.init(name: "second"))]
    let task = Task { await manager.keepAlive(workers) }
    #expect(await socket.receive() == "WATCHDOG=1")
    #expect(await socket.receive() == "WATCHDOG=1")
    task.cancel()
    await task.value
    for worker in workers { worker.stop() }
  }

  @Test func aWorkerThatHangsIsNotCoveredUp() async throws {
    let place = TemporarySocketPath()
    let socket = try DatagramSocket(at: place.path)
    let manager = try #require(make(["NOTIFY_SOCKET": place.path, "WATCHDOG_USEC": "4000"]))
    let workers = [try Worker(.init(name: "good")), try Worker(.init(name: "hangs"))]
    await withTaskGroup(of: Void.self) { group in
      let gate = Gate()
      workers[1].post { gate.wait() }
      group.addTask { await manager.keepAlive(workers) }
      // Many times what it has: however long this takes, nothing may come.
      try? await Task.sleep(for: .milliseconds(100))
      #expect(socket.isEmpty)
      gate.open()
      #expect(await socket.receive() == "WATCHDOG=1")
      group.cancelAll()
    }
    for worker in workers { worker.stop() }
  }
}
