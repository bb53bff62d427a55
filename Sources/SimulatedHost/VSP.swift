// SPDX-License-Identifier: Apache-2.0

public import Platform
public import VMBus

/// The host's end of a kind of device: what an author adopts to give guests a new one.
///
/// One value serves all guests of the host. It is offered to each of them; when a guest opens the
/// channel, `open` makes a `Pollable` that owns it and attaches it to the worker.
public protocol VSP: Sendable {
  /// What guests are told. The host sets channel and connection ids.
  var offer: OfferChannel { get }

  /// Begins to serve a channel that a guest has opened: attaches a value that owns it to the
  /// worker. That value must finish (`poll` returns nil) when `channel.isClosed`, or when the
  /// guest corrupted the ring.
  func open(_ channel: consuming sending HostChannel, on worker: Worker)
}
