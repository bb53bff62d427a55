// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
public import VSC

/// The storage driver: the disks of a SCSI controller, each as a `BlockDevice`.
///
/// The primary channel runs on the device's first worker. For each further worker a subchannel is
/// asked for; where the host grants fewer, the driver works with what there is.
public struct StorageVSC: VSC {
  public struct Configuration: Sendable {
    /// The disk on its controller; nil for all of them.
    public var lun: UInt8?
    public var controller: StorageController.Configuration

    public init(
      lun: UInt8? = 0, controller: StorageController.Configuration = .init()
    ) {
      self.lun = lun
      self.controller = controller
    }

    public init(
      lun: UInt8 = 0, depth: Int, bufferByteCount: Int = 256 * 1024,
      timeout: UInt64 = 30_000_000_000, ringByteCount: Int = 128 * 1024
    ) {
      self.lun = lun
      controller = StorageController.Configuration(
        depth: depth, bufferByteCount: bufferByteCount, timeout: timeout,
        ringByteCount: ringByteCount)
    }
  }

  public static var deviceClass: DeviceClass { .scsi }

  public var channelParameters: ChannelParameters {
    ChannelParameters(ringByteCount: configuration.controller.ringByteCount)
  }

  private let configuration: Configuration
  private let whenReady: @Sendable (StorageController) async -> Void

  /// - Parameter whenReady: gets each controller that was started.
  public init(
    _ configuration: Configuration = Configuration(),
    whenReady: @escaping @Sendable (StorageController) async -> Void
  ) {
    self.configuration = configuration
    self.whenReady = whenReady
  }

  /// Opens one disk over as many channels as the device has workers. Closing it closes the device.
  public static func open(
    _ device: Device, _ configuration: Configuration = Configuration()
  ) async throws -> BlockDevice {
    let lun = configuration.lun ?? 0
    var configuration = configuration
    configuration.lun = lun
    let controller = try await openController(device, configuration)
    do {
      return try controller.disk(lun).owningController()
    } catch {
      await controller.close()
      throw StorageOpenError.storage(error)
    }
  }

  /// Opens a controller with all of its disks.
  public static func openController(
    _ device: Device, _ configuration: Configuration = Configuration(lun: nil)
  ) async throws -> StorageController {
    guard !device.workers.isEmpty else { throw StorageOpenError.noWorker }
    let opened = Promise<StorageController>()
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
    let settings = configuration.controller
    let life = ServiceLife()
    let channels = ControllerChannels()
    let pool: DMAPool<External> = try device.makePool(
      count: settings.bufferCount, byteCount: settings.usableBufferByteCount)
    let isBounced = pool.isBounced
    let queue = StorageQueue(
      controller: channel,
      queueConfiguration(Ring.self, External.self, subchannels: device.workers.count - 1))
    channels.add(attach(queue, pool, to: worker, life))
    do throws(StorageError) {
      let agreement = try await life.started.value().get()
      try await openSubchannels(
        of: device, agreement, channels, life, ring: Ring.self, external: External.self)
      let controller = StorageController(
        device, agreement.capabilities, channels, life, onlyLUN: configuration.lun,
        memories: (Ring.memory, External.memory, isBounced))
      try await controller.rescan()
      await whenReady(controller)
    } catch {
      for channel in channels.all { channel.drop() }
      throw StorageOpenError.storage(error)
    }
  }

  private func queueConfiguration<Ring: Visibility, External: Visibility>(
    _: Ring.Type, _: External.Type, subchannels: Int = 0
  ) -> StorageQueue<Ring, External>.Configuration {
    let settings = configuration.controller
    return StorageQueue<Ring, External>.Configuration(
      depth: settings.usableDepth, timeout: settings.timeout,
      subchannels: min(subchannels, settings.maximumSubchannels))
  }

  private func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending StorageQueue<Ring, External>,
    _ pool: consuming sending DMAPool<External>, to worker: Worker, _ life: ServiceLife
  ) -> ControllerChannel {
    ControllerChannel(
      worker.attach(StorageService(queue, pool, configuration.controller, life: life)), life)
  }

  /// One for each further worker, as far as the host grants and offers them.
  private func openSubchannels<Ring: Visibility, External: Visibility>(
    of device: Device, _ agreement: StorageAgreement, _ channels: ControllerChannels,
    _ life: ServiceLife, ring: Ring.Type, external: External.Type
  ) async throws(StorageError) {
    let settings = configuration.controller
    let workers = device.workers.dropFirst().prefix(agreement.subchannelCount)
    for (index, worker) in workers.enumerated() {
      do throws(TransportError) {
        let channel: Channel<Ring, External> = try await device.openSubchannel(
          UInt16(clamping: index + 1), channelParameters, on: worker)
        let pool: DMAPool<External> = try device.makePool(
          count: settings.bufferCount, byteCount: settings.usableBufferByteCount)
        let queue = StorageQueue(
          subchannel: channel, queueConfiguration(Ring.self, External.self), agreement)
        channels.add(attach(queue, pool, to: worker, life))
      } catch {
        // Fewer were offered than granted, or there is no memory for more.
        break
      }
    }
    if let reason = life.endReason { throw reason }
  }
}
