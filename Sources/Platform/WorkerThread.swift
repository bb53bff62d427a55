// SPDX-License-Identifier: Apache-2.0

import CLinux
import SystemPackage

/// The operating system's side of a worker: its thread, and the mail between two rounds.
enum WorkerThread: Sendable {
  case running(pthread_t)
  case ended

  /// What the new thread is given.
  private final class Start {
    let worker: Worker

    init(_ worker: Worker) { self.worker = worker }
  }

  static func start(_ worker: Worker) throws(Errno) -> WorkerThread {
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(Start(worker))
    let error = unsafe pthread_create(
      &thread, nil,
      { argument in
        // Safe: the pointer is the retained object from just above, taken over once.
        let start = unsafe Unmanaged<Start>.fromOpaque(argument.unsafelyUnwrapped)
          .takeRetainedValue()
        WorkerThread.main(start.worker)
        return nil
      }, argument.toOpaque())
    guard error == 0 else {
      unsafe argument.release()
      throw Errno(rawValue: error)
    }
    return .running(thread)
  }

  func join() {
    if case .running(let thread) = self { _ = pthread_join(thread, nil) }
  }

  var isCurrent: Bool {
    if case .running(let thread) = self { return pthread_equal(thread, pthread_self()) != 0 }
    return false
  }

  private static func main(_ worker: Worker) {
    unsafe vmbus_name_thread(worker.configuration.name)
    // Allowed when the worker was made; a cpuset that changed since then only costs speed.
    if let cpu = worker.configuration.cpu { _ = vmbus_pin_thread(Int32(clamping: cpu)) }
    while !worker.isOver {
      for mail in worker.takeMail() { worker.handle(mail) }
      worker.runLoop()
    }
    for mail in worker.takeMail(last: true) { worker.handleAfterEnd(mail) }
  }
}
