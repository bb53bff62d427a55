// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// A device that a driver was started for: its channels, its memory, its workers.
public final class Device: Sendable {
  let transport: any DeviceTransport
  /// Those that a channel can be had for: a driver asks its host for as many subchannels as there are further
  /// ones.
  public let workers: [Worker]

  /// - Parameter workers: at least one; the primary channel goes to the first, and the others are left out
  ///   where there can be no subchannels.
  public init(_ transport: any DeviceTransport, workers: [Worker]) {
    self.transport = transport
    self.workers = transport.whyNoSubchannels == nil ? workers : Array(workers.prefix(1))
  }

  public var identity: DeviceIdentity { transport.identity }

  /// Opens the primary channel. The pair of memories is decided here, once, by what the offer
  /// says now.
  public func open(
    _ parameters: ChannelParameters, on worker: Worker
  ) async throws(TransportError) -> OpenedChannel {
    let raw = try await transport.openChannel(parameters, worker: worker)
    let state = raw.state
    do throws(RingError) {
      switch raw.confidentiality {
      case .hostVisible: return .hostVisible(try Channel(raw, parameters))
      case .ring: return .encryptedRing(try Channel(raw, parameters))
      case .ringAndExternalMemory: return .encrypted(try Channel(raw, parameters))
      }
    } catch {
      state.release()
      throw .ring(error)
    }
  }

  /// Opens a subchannel that the host was asked for in the device's own protocol. It uses the same
  /// memories as the primary channel, or is refused.
  ///
  /// - Parameter index: the first subchannel is 1.
  public func openSubchannel<Ring: Visibility, External: Visibility>(
    _ index: UInt16, _ parameters: ChannelParameters, on worker: Worker
  ) async throws(TransportError) -> sending Channel<Ring, External> {
    let raw = try await transport.openSubchannel(index, parameters, worker: worker)
    let state = raw.state
    let memories: (MemoryVisibility, MemoryVisibility) =
      switch raw.confidentiality {
      case .hostVisible: (.hostVisible, .hostVisible)
      case .ring: (.encrypted, .hostVisible)
      case .ringAndExternalMemory: (.encrypted, .encrypted)
      }
    guard memories == (Ring.memory, External.memory) else {
      state.release()
      throw .subchannelDiffers(raw.confidentiality)
    }
    do throws(RingError) {
      return try Channel(raw, parameters)
    } catch {
      state.release()
      throw .ring(error)
    }
  }

  /// Memory for DMA, for the worker of one channel. It stays until the device is closed and known to
  /// be quiet, whoever drops it before (law 3).
  ///
  /// - Parameters:
  ///   - count: buffers of the largest size that there is room for.
  ///   - byteCount: of the largest buffer, below 2 GiB; rounded up to a multiple of 4096.
  public func makePool<Memory: Visibility>(
    of memory: Memory.Type = Memory.self, count: Int, byteCount: Int
  ) throws(TransportError) -> DMAPool<Memory> {
    guard byteCount <= 1 << 31 - 4096 else {
      throw .outOfMemory(Memory.memory, byteCount: byteCount)
    }
    let size = (max(byteCount, 1) + 4095) & ~4095
    let (total, overflow) = size.multipliedReportingOverflow(by: max(count, 1))
    guard !overflow else { throw .outOfMemory(Memory.memory, byteCount: .max) }
    let pages = try transport.allocate(Memory.memory, byteCount: total)
    return DMAPool(pages, bufferByteCount: size)
  }

  /// Returns when the device is gone: taken back, or its host with it.
  public func ended() async -> ChannelEnd { await transport.ended() }

  /// Closes all channels, waits until the host is known to be quiet, and frees the memory.
  public func close() async { await transport.close() }
}

/// What a driver author adopts.
///
/// `start` is called with the open primary channel and hands a `Pollable` that owns it to the
/// worker; from then on the worker polls it. The same source runs on every transport.
public protocol VSC: Sendable {
  /// The devices that this driver is for.
  static var deviceClass: DeviceClass { get }

  /// How the primary channel is to be opened.
  var channelParameters: ChannelParameters { get }

  /// Starts the device on its worker. Throw to give the device back.
  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws
}

extension VSC {
  public var channelParameters: ChannelParameters { ChannelParameters() }

  /// Opens the device's primary channel and starts the driver with it.
  public func start(_ device: Device) async throws {
    guard let worker = device.workers.first else { return }
    let opened = try await device.open(channelParameters, on: worker)
    switch consume opened {
    case .hostVisible(let channel): try await start(channel, of: device, on: worker)
    case .encryptedRing(let channel): try await start(channel, of: device, on: worker)
    case .encrypted(let channel): try await start(channel, of: device, on: worker)
    }
  }
}
