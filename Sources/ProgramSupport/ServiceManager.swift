// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Platform
import Synchronization
public import SystemPackage

/// Who started this program as a service and wants to hear how it goes: systemd, by the datagrams of
/// sd_notify(3). Who is not told (`NOTIFY_SOCKET` is not set) is not there.
public struct ServiceManager: Sendable {
  /// What it can be told.
  public enum News: Sendable {
    /// The device is driven, and others can use it.
    case ready
    /// The program has been asked to end.
    case stopping
    /// The program is not stuck: wanted once in each `watchdog`.
    case alive
    /// For people, in one line.
    case status(String)

    /// As sd_notify(3) writes it.
    var line: String {
      switch self {
      case .ready: "READY=1"
      case .stopping: "STOPPING=1"
      case .alive: "WATCHDOG=1"
      // A line more would be another piece of news.
      case .status(let text):
        "STATUS=" + text.split(whereSeparator: \.isNewline).joined(separator: " ")
      }
    }
  }

  /// That of this process, by its environment.
  public static let own = ServiceManager { name in
    unsafe getenv(name).map { unsafe String(cString: $0) }
  }

  private let socket: String

  /// After this time without news it takes the program for stuck, and kills it; nil when it never does.
  public let watchdog: Duration?

  /// - Parameter variable: a variable of the environment.
  public init?(_ variable: (String) -> String?) {
    guard let socket = variable("NOTIFY_SOCKET"), !socket.isEmpty else { return nil }
    self.socket = socket
    // They are meant for one process. nbdkit, in which a disk's driver runs, is the child of that one.
    let process = variable("WATCHDOG_PID").map { Int32($0) ?? -1 }
    let microseconds = variable("WATCHDOG_USEC").flatMap { Int64($0) } ?? 0
    let isMeant = process == nil || process == getpid() || process == getppid()
    watchdog = isMeant && microseconds > 0 ? .microseconds(microseconds) : nil
  }

  /// Sends the news, all in one datagram.
  public func send(_ news: [News]) throws(Errno) {
    let bytes = Array(news.map(\.line).joined(separator: "\n").utf8)
    let result = unsafe bytes.withUnsafeBytes { bytes in
      unsafe vmbus_send_datagram(socket, bytes.baseAddress.unsafelyUnwrapped, bytes.count)
    }
    guard result == 0 else { throw Errno(rawValue: -result) }
  }

  /// The same, where nobody could do anything about a failure: a driver goes on without its manager.
  public func tell(_ news: News...) { try? send(news) }

  /// Tells that the program is alive, as long as all workers answer, until the task is cancelled. One that
  /// hangs in its poll answers no more, so the manager kills the program, and starts it again.
  public func keepAlive(_ workers: [Worker]) async {
    guard let watchdog else { return }
    while !Task.isCancelled {
      let answers = Answers()
      for worker in workers { worker.post { answers.count.add(1, ordering: .relaxed) } }
      // It is asked twice in the time that sd_watchdog_enabled(3) advises, so that a slow answer is no late one.
      repeat {
        try? await Task.sleep(for: watchdog / 4)
      } while !Task.isCancelled && answers.count.load(ordering: .relaxed) < workers.count
      if !Task.isCancelled { tell(.alive) }
    }
  }
}

private final class Answers: Sendable {
  let count = Atomic<Int>(0)
}

/// Calls `body`, and tells the service manager meanwhile that the program is alive as long as all workers
/// answer.
public func keepingAlive<Result>(
  _ workers: [Worker] = [], _ body: () async throws -> Result
) async rethrows -> Result {
  guard let manager = ServiceManager.own else { return try await body() }
  let task = Task { await manager.keepAlive(workers) }
  defer { task.cancel() }
  return try await body()
}
