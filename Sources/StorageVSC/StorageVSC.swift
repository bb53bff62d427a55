// SPDX-License-Identifier: Apache-2.0

public import VSC

/// The storage driver: one disk of a SCSI controller as a `BlockDevice`.
public struct StorageVSC: VSC {
  public struct Configuration: Sendable {
    /// The disk on its controller.
    public var lun: UInt8
    /// Requests at one time, and buffers of DMA memory.
    public var depth: Int
    /// Bytes of each buffer: the largest request.
    public var bufferByteCount: Int
    /// Nanoseconds that the host has for a request.
    public var timeout: UInt64
    public var ringByteCount: Int

    public init(
      lun: UInt8 = 0, depth: Int = 64, bufferByteCount: Int = 256 * 1024,
      timeout: UInt64 = 30_000_000_000, ringByteCount: Int = 128 * 1024
    ) {
      self.lun = lun
      self.depth = depth
      self.bufferByteCount = bufferByteCount
      self.timeout = timeout
      self.ringByteCount = ringByteCount
    }
  }

  public static var deviceClass: DeviceClass { .scsi }

  public var channelParameters: ChannelParameters {
    ChannelParameters(ringByteCount: configuration.ringByteCount)
  }

  private let configuration: Configuration
  private let whenReady: @Sendable (BlockDevice) async -> Void

  /// - Parameter whenReady: gets each disk that was started.
  public init(
    _ configuration: Configuration = Configuration(),
    whenReady: @escaping @Sendable (BlockDevice) async -> Void
  ) {
    self.configuration = configuration
    self.whenReady = whenReady
  }

  /// Opens a disk on the device's first worker, and returns it when it has told what it is.
  public static func open(
    _ device: Device, _ configuration: Configuration = Configuration()
  ) async throws -> BlockDevice {
    guard !device.workers.isEmpty else { throw StorageOpenError.noWorker }
    let opened = Promise<BlockDevice>()
    let driver = StorageVSC(configuration) { opened.keep($0) }
    do {
      try await driver.start(device)
    } catch let error as TransportError {
      throw StorageOpenError.transport(error)
    }
    return await opened.value()
  }

  public func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    let depth = min(max(configuration.depth, 1), 4096)
    var pool: DMAPool<External> = try device.makePool(
      count: depth, byteCount: max(configuration.bufferByteCount, 4096))
    // A new pool has at least one buffer.
    guard let answer = pool.take() else { throw StorageOpenError.storage(.wouldBlock) }
    let isScrubbed = pool.isScrubbed
    let queue = StorageQueue(
      channel,
      StorageQueue<Ring, External>.Configuration(
        lun: configuration.lun, depth: depth, timeout: configuration.timeout), answer: answer)
    let life = ServiceLife()
    let handle = worker.attach(StorageService(queue, pool, depth: depth, life: life))
    let disk: DiskInformation
    do {
      disk = try await life.started.value().get()
    } catch {
      handle.detach()
      throw StorageOpenError.storage(error)
    }
    let information = BlockDevice.Information(
      disk: disk, identity: device.identity, ringMemory: Ring.memory,
      dataMemory: External.memory, isBounced: isScrubbed && External.memory == .hostVisible)
    await whenReady(BlockDevice(information, device, handle, life))
  }
}
