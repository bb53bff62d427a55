// SPDX-License-Identifier: Apache-2.0

package import Platform
package import VSC

/// What a disk belongs to: a SCSI controller of the host, or an NVMe controller.
package protocol BlockController: AnyObject, Sendable {
  /// Why it can be used no more, or nil while it can.
  var ended: StorageError? { get }
  /// Channels, or queues, that share the requests.
  var channelCount: Int { get }
  /// Those on whose threads they are driven.
  var workers: [Worker] { get }
  var memories: (ring: MemoryVisibility, data: MemoryVisibility, isBounced: Bool) { get }
  func place(of unit: StorageUnit) -> BlockDevice.Place
  /// Of each channel; empty when they are over.
  func counters() async -> [StorageCounters]
  func close() async
}
