// SPDX-License-Identifier: Apache-2.0

public import NVMeProtocol
public import StorageProtocol
public import VMBus
public import VSC

/// Why a disk did not do what was asked. A plain value: failing a request allocates nothing.
public enum StorageError: Error, Equatable, Sendable {
  // The caller's affair; the disk is as it was.

  /// Bytes that are not on the disk.
  case outOfRange(offset: UInt64, byteCount: Int, capacity: UInt64)
  /// No multiple of the block size, or more than one request or its buffer can hold.
  case badLength(Int)
  case readOnly
  /// The ring is full, or as many requests as this queue can hold are under way: try again when
  /// one has completed.
  case wouldBlock
  /// The start-up is not over.
  case notReady
  case cancelled
  /// A blocking call on the worker's own thread would wait for itself.
  case onWorkerThread
  /// The disk can't do that at all, or not faster than by writing.
  case unsupported

  // The device's.

  case failed(SRBStatus, SCSIStatus, SCSISense?)
  /// The same from an NVMe controller.
  case rejected(NVMeStatus)
  /// Success, but not for all bytes.
  case shortTransfer(asked: Int, moved: Int)
  /// No completion in time. The memory stays the device's until it comes. Whether the request is
  /// executed yet, and when, is not known: a write may still reach the disk, after a later one.
  case timedOut
  /// The completion's bytes broke the protocol.
  case malformed(WireError)
  case unexpectedOperation(StorageOperation)
  /// The host declined what is no request: subchannels, a reset.
  case declined(NTStatus)
  /// The request went down in a reset of its controller; whether it was executed is not known.
  case reset
  /// The disk was taken away from its controller.
  case removed(lun: UInt8)
  /// The host answered neither requests nor resets: the channel was given up.
  case unresponsive
  /// The channel is over.
  case channel(ChannelError)

  // Of the start-up.

  case refused(StorageProtocolError)
  case noDisk(lun: UInt8)
  /// The unit is no disk; its SCSI device type.
  case notADisk(deviceType: UInt8)
  /// There is no such namespace, or none that can be used.
  case noNamespace(UInt32)
  /// The controller did not become ready, or can't be used: why.
  case unusableController(WireName)
  case unusableGeometry(lastBlock: UInt64, blockSize: UInt32)
}

extension StorageError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .outOfRange(let offset, let byteCount, let capacity):
      "\(byteCount) bytes at \(offset) are not on the disk, which has \(capacity) bytes"
    case .badLength(let count): "a request of \(count) bytes can't be made to this disk"
    case .readOnly: "the disk is read-only"
    case .wouldBlock: "too many requests are under way"
    case .notReady: "the disk is not ready yet"
    case .cancelled: "the request was cancelled"
    case .onWorkerThread: "a blocking call on the worker's own thread"
    case .unsupported: "the disk can't do that"
    case .failed(let srb, let scsi, let sense):
      if let sense { "the disk failed: \(sense)" } else { "the disk failed: \(srb), \(scsi)" }
    case .rejected(let status): "the disk failed: \(status)"
    case .shortTransfer(let asked, let moved):
      "the host moved \(moved) bytes, where \(asked) were asked for"
    case .timedOut: "the host did not answer in time"
    case .malformed(let error): "the host's answer is malformed: \(error)"
    case .unexpectedOperation(let operation): "the host answered a request with \(operation)"
    case .declined(let status): "the host declined: \(status)"
    case .reset: "the controller was reset"
    case .removed(let lun): "the disk at LUN \(lun) was taken away"
    case .unresponsive: "the host answers neither requests nor resets"
    case .channel(let error): error.description
    case .refused(let error): error.description
    case .noDisk(let lun): "there is no disk at LUN \(lun)"
    case .notADisk(let type): "the unit is no disk (SCSI device type \(type))"
    case .noNamespace(let id): "there is no namespace \(id)"
    case .unusableController(let why): "the controller can't be used: \(why)"
    case .unusableGeometry(let last, let size):
      "a disk with last block \(last) and \(size) bytes per block can't be used"
    }
  }
}

/// Why a disk could not be opened.
public enum StorageOpenError: Error, Equatable, Sendable, CustomStringConvertible {
  case transport(TransportError)
  case storage(StorageError)
  /// The device has no worker to run on.
  case noWorker

  public var description: String {
    switch self {
    case .transport(let error): error.description
    case .storage(let error): error.description
    case .noWorker: "the device has no worker"
    }
  }
}
