// SPDX-License-Identifier: Apache-2.0

/// One thing that a machine needs for drivers in user space, and how it stands.
public struct Finding: Sendable, Equatable {
  public enum Verdict: String, Sendable {
    case ok
    /// Some drivers, or some uses of them, will not work.
    case warning
    /// Nothing works, or what somebody has set up does not.
    case fault
  }

  /// What was looked at: "kernel", "udev rules", a device's GUID.
  public var subject: String
  public var verdict: Verdict
  /// How it stands, or what is wrong: a plain sentence without an end.
  public var text: String
  /// The command that mends it, where there is one.
  public var remedy: String?

  public init(_ subject: String, _ verdict: Verdict, _ text: String, remedy: String? = nil) {
    self.subject = subject
    self.verdict = verdict
    self.text = text
    self.remedy = remedy
  }
}
