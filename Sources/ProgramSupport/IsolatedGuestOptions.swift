// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser

/// What Linux in an isolated machine needs of whoever serves its channels, host or paravisor.
public struct IsolatedGuestOptions: ParsableArguments {
  @Flag(
    help:
      "Look at open rings every millisecond, for guests that do not signal: Linux in a VBS machine with a paravisor."
  )
  public var pollRings = false

  @Flag(
    help:
      "Take data from host-visible memory too where the offer says encrypted (memory=all): Linux's storage driver bounces it all the same."
  )
  public var acceptSharedData = false

  public init() {}
}
