// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// What a process gives away for good.
public enum Privileges {
  /// Goes on as another user. Where the main function is asynchronous, the thread that the program began
  /// with has ended for the C library by then: it sleeps for ever, and keeps its ids.
  public static func drop(to user: UInt32) throws(Errno) {
    let result = vmbus_become(user)
    guard result == 0 else { throw Errno(rawValue: -result) }
  }

  /// Closes this process to all who don't have privileges: what is in its memory stays there.
  public static func hide() { vmbus_hide_process() }
}
