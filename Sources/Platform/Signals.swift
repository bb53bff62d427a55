// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// The signals that ask a program to end: SIGINT and SIGTERM.
public enum Termination {
  /// From now on they do not end the process, but `wait`.
  public static func handle() throws(Errno) { try checked(vmbus_catch_termination()) }

  /// Waits for the next one. It blocks the calling thread.
  public static func wait() -> Int32 { vmbus_wait_for_termination() }

  /// Waits for the next one on a thread of its own, or until the task is cancelled.
  public static func next() async throws(Errno) {
    let worker = try Worker(.init(name: "signals", spinRounds: 0))
    let descriptor = unsafe vmbus_termination_fd().pointee
    let promise = Promise<Void>()
    worker.watch(descriptor) {
      EventDescriptor.drain(descriptor)
      promise.keep(())
    }
    await withTaskCancellationHandler {
      await promise.value()
    } onCancel: {
      promise.keep(())
    }
    worker.stop()
  }
}
