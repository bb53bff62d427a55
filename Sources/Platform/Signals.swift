// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// The signals that ask a program to end: SIGINT and SIGTERM.
public enum Termination {
  /// From now on they do not end the process, but `wait`.
  public static func handle() throws(Errno) { try checked(vmbus_catch_termination()) }

  /// Waits for the next one. It blocks the calling thread.
  public static func wait() -> Int32 { vmbus_wait_for_termination() }

  /// Waits on a thread of its own until one has come, or until the task is cancelled. Once one has
  /// come, this returns at once.
  public static func next() async throws(Errno) {
    let worker = try Worker(.init(name: "signals", spinRounds: 0))
    let descriptor = unsafe vmbus_termination_fd().pointee
    let promise = Promise<Void>()
    // It stays readable, so that who asks later learns it too.
    worker.watch(descriptor) { [unowned worker] in
      worker.unwatch(descriptor)
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
