// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
public import VSC

/// The dynamic memory driver: it tells the host how much memory this machine needs, gives pages to
/// the host when it asks for them, and takes them back when it returns them.
///
/// **What holds.** Pages are taken from the system before the host hears of them, and they are
/// pinned: until the host returns them, they are neither moved nor reused, nor read or written. A
/// request beyond the operator's limits is answered with fewer pages, or with none. Pages that the
/// host "returns" though they are not the balloon's are ignored and counted.
///
/// **What does not, and can't in user space.** The pages are this process's. When it ends, however
/// it ends, the kernel has them back, and the host is told by the close of the channel only. QEMU
/// then still counts them as ballooned until the machine's VMBus is reset (and refuses to open the
/// channel again until then), but backs a page anew, with zeros, when it is touched. For Hyper-V no
/// public source says what happens at such a touch: Linux's own driver keeps pages that are still
/// ballooned when it is removed. So on Hyper-V end the driver only after the host has returned all
/// pages, and start it so that nothing else ends it: without a memory limit for its control group
/// (ballooned pages count), and out of the reach of the kernel's out-of-memory killer.
///
/// Memory is taken in the open: in a machine whose memory is encrypted the host can't read the
/// pages, but it decides what lies behind them afterwards. They are not used then.
///
/// Privileges: CAP_SYS_ADMIN for page numbers, CAP_IPC_LOCK for more than the limit on locked
/// memory, and io_uring. Without them the driver tells the host that it has no balloon, and only
/// reports.
public struct BalloonVSC: VSC {
  public struct Configuration: Sendable {
    /// Pages of 4096 bytes that must stay available to the system; nil for what Linux's own
    /// driver leaves (`SystemMemory.defaultFloor`).
    public var floorPages: UInt64?
    /// Pages that the balloon holds at most; nil for as many as the floor lets it.
    public var maximumPages: UInt64?
    /// Nanoseconds from the start-up to the first report: a machine that has just booted has not
    /// shown yet what it needs.
    public var reportDelay: UInt64
    /// Nanoseconds between reports. Hosts expect one each second.
    public var reportInterval: UInt64
    /// Nanoseconds that the host has for each answer in the start-up.
    public var answerTimeout: UInt64
    /// False for a driver that reports and has no balloon.
    public var takesMemory: Bool
    public var ringByteCount: Int

    public init(
      floorPages: UInt64? = nil, maximumPages: UInt64? = nil,
      reportDelay: UInt64 = 45_000_000_000, reportInterval: UInt64 = 1_000_000_000,
      answerTimeout: UInt64 = 5_000_000_000, takesMemory: Bool = true,
      ringByteCount: Int = 5 * 4096
    ) {
      self.floorPages = floorPages
      self.maximumPages = maximumPages
      self.reportDelay = reportDelay
      self.reportInterval = max(reportInterval, 1_000_000)
      self.answerTimeout = answerTimeout
      self.takesMemory = takesMemory
      self.ringByteCount = ringByteCount
    }
  }

  public static var deviceClass: DeviceClass { .balloon }

  public var channelParameters: ChannelParameters {
    ChannelParameters(
      ringByteCount: configuration.ringByteCount, maximumPacketByteCount: 8192)
  }

  private let configuration: Configuration
  private let whenChanged: @Sendable (BalloonEvent, BalloonStatus) -> Void

  /// - Parameter whenChanged: told of each report and each change, on the worker's thread. The
  ///   last event is `ended`.
  public init(
    _ configuration: Configuration = Configuration(),
    whenChanged: @escaping @Sendable (BalloonEvent, BalloonStatus) -> Void = { _, _ in }
  ) {
    self.configuration = configuration
    self.whenChanged = whenChanged
  }

  /// Returns when the host has accepted this guest.
  ///
  /// - Throws: `BalloonError`.
  public func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    let system: SystemMemory
    do throws(BalloonMemoryError) {
      system = try SystemMemory.now()
    } catch {
      throw BalloonError.memory(error)
    }
    let limits = BalloonLimits(
      floor: configuration.floorPages ?? system.defaultFloor,
      maximum: min(configuration.maximumPages ?? .max, system.total))
    let life = BalloonLife(whenChanged)
    let service = makeService(channel, limits, life)
    let handle = worker.attach(service)
    if let error = await life.started.value() {
      handle.detach()
      throw error
    }
  }

  private func makeService<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, _ limits: BalloonLimits,
    _ life: BalloonLife
  ) -> sending BalloonService<Ring, External> {
    var timing = BalloonCore.Timing()
    timing.answer = configuration.answerTimeout
    timing.reportDelay = configuration.reportDelay
    timing.reportInterval = configuration.reportInterval
    var problem: BalloonMemoryError?
    var memory: PinnedMemory?
    if configuration.takesMemory {
      do throws(BalloonMemoryError) {
        memory = try PinnedMemory.open(maximumPageCount: limits.maximum)
      } catch {
        problem = error
      }
    }
    let canBalloon = memory != nil
    return BalloonService(
      channel, core: BalloonCore(canBalloon: canBalloon, timing: timing), memory: memory,
      problem: problem, limits: limits, life: life)
  }
}
