// SPDX-License-Identifier: Apache-2.0

import CLinux
import SystemPackage

/// The signals that ask a program to end: SIGINT and SIGTERM.
public enum Termination {
  /// Keeps them from ending the process. Call it first in `main`: threads made later inherit it.
  public static func block() { vmbus_block_termination() }

  /// Waits for the next one and returns its number. It blocks the calling thread.
  public static func wait() -> Int32 { vmbus_wait_for_termination() }

  /// Waits for the next one without blocking a thread of the caller's.
  public static func next() async -> Int32 {
    await withCheckedContinuation { continuation in
      // A thread of its own, which sleeps in the system until then.
      do throws(Errno) {
        try Worker(.init(name: "signals", spinRounds: 0)).post {
          continuation.resume(returning: wait())
        }
      } catch {
        continuation.resume(returning: wait())
      }
    }
  }
}
