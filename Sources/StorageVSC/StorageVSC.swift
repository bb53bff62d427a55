// SPDX-License-Identifier: Apache-2.0

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
      count: settings.usableDepth, byteCount: settings.usableBufferByteCount)
    let isBounced = pool.isScrubbed && External.memory == .hostVisible
    channels.add(attach(channel, pool, capabilities: nil, to: worker, life))
    do throws(StorageError) {
      let capabilities = try await life.started.value().get()
      try await openSubchannels(
        of: device, capabilities, channels, life, ring: Ring.self, external: External.self)
      let controller = StorageController(
        device, capabilities, channels, life, onlyLUN: configuration.lun,
        memories: (Ring.memory, External.memory, isBounced))
      try await controller.rescan()
      await whenReady(controller)
    } catch {
      for channel in channels.all { channel.drop() }
      throw StorageOpenError.storage(error)
    }
  }

  private func attach<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>,
    _ pool: consuming sending DMAPool<External>, capabilities: StorageCapabilities?,
    to worker: Worker, _ life: ServiceLife
  ) -> ControllerChannel {
    let settings = configuration.controller
    let queue = StorageQueue(
      channel,
      StorageQueue<Ring, External>.Configuration(
        depth: settings.usableDepth, timeout: settings.timeout), capabilities: capabilities)
    return ControllerChannel(
      worker.attach(StorageService(queue, pool, settings, life: life)), life)
  }

  /// One for each further worker, as far as the host grants and offers them.
  private func openSubchannels<Ring: Visibility, External: Visibility>(
    of device: Device, _ capabilities: StorageCapabilities, _ channels: ControllerChannels,
    _ life: ServiceLife, ring: Ring.Type, external: External.Type
  ) async throws(StorageError) {
    let settings = configuration.controller
    let count = min(
      device.workers.count - 1, Int(capabilities.maximumSubchannels), settings.maximumSubchannels)
    guard count > 0, capabilities.isMultiChannel else { return }
    // Once for each opening of the device, and after the start-up.
    let request = Transfer(
      .control(StorageNegotiation.createSubchannels(UInt16(clamping: count))), lun: 0)
    channels.all.first?.hand(request)
    switch await request.outcome.value() {
    case nil: break
    // The primary channel does all the work, then.
    case .declined: return
    case let error?: throw error
    }
    for (index, worker) in device.workers.dropFirst().prefix(count).enumerated() {
      do {
        let channel: Channel<Ring, External> = try await device.openSubchannel(
          UInt16(clamping: index + 1), channelParameters, on: worker)
        let pool: DMAPool<External> = try device.makePool(
          count: settings.usableDepth, byteCount: settings.usableBufferByteCount)
        channels.add(attach(channel, pool, capabilities: capabilities, to: worker, life))
      } catch {
        // Fewer were offered than granted, or there is no memory for more.
        break
      }
    }
    if let reason = life.endReason { throw reason }
  }
}
