// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import NetworkProtocol
import NetworkVSC
import PacketIO
import VSC

/// The arguments that name a network device and say how it is opened.
struct NetworkOptions: ParsableArguments {
  @OptionGroup var driver: DriverOptions

  @Option(
    help: ArgumentHelp(
      "Queues, each with a worker of its own, as far as the host offers them. By default one for each processor of --cpu.",
      valueName: "count"))
  var queues: Int?

  @Option(
    help: ArgumentHelp(
      "Bytes of the largest packet: 576 to 9000, as far as the host allows it.", valueName: "bytes")
  )
  var mtu = 1500

  func validate() throws {
    guard 1...NetworkConfiguration.maximumQueues ~= queues ?? 1 else {
      throw ValidationError("--queues must be 1 to \(NetworkConfiguration.maximumQueues).")
    }
    guard NetworkConfiguration.mtuRange ~= mtu else {
      throw ValidationError(
        "--mtu must be \(NetworkConfiguration.mtuRange.lowerBound) to "
          + "\(NetworkConfiguration.mtuRange.upperBound).")
    }
  }

  var configuration: NetworkConfiguration {
    var configuration = NetworkConfiguration()
    configuration.mtu = mtu
    configuration.queueCount = queues
    return configuration
  }
}

extension ProgramFailure {
  init(network error: NetworkError) {
    switch error {
    case .badMTU, .badFrameLength, .badInfo: self.init(.usage, "\(error)")
    default: self.init(.unavailable, "\(error)")
    }
  }

  init(tap error: TapError) {
    switch error {
    case .nameTooLong, .badName, .mtuOutOfRange, .tooManyQueues, .badAddress:
      self.init(.usage, "\(error)")
    case .exists: self.init(.cannotCreate, "\(error)")
    case .notPermitted: self.init(.permission, "\(error)")
    case .noTunDriver, .system: self.init(.system, "\(error)")
    }
  }

  /// What a driver threw, as a program says it.
  static func wrapping(_ error: any Error) -> any Error {
    switch error {
    case let error as NetworkError: ProgramFailure(network: error)
    case let error as TapError: ProgramFailure(tap: error)
    case let error as TransportError: ProgramFailure(.unavailable, "\(error)")
    default: error
    }
  }
}

/// Why a driver's life ended, as the loop over offers wants it: nil for what is no end of the device.
func channelEnd(_ error: NetworkError) -> ChannelEnd? {
  switch error {
  case .channel(.ended(let end)): end
  case .transport(.rescinded): .rescinded
  default: nil
  }
}

/// Tells of what happens to the device: on standard error, a line each; and on a terminal, how long a
/// host takes.
func eventText(_ event: NetworkEvent) -> String? {
  switch event {
  case .starting: nil
  case .linkUp: "link up"
  case .linkDown: "link down"
  case .linkSpeed(let speed): "link speed: \(linkSpeedText(speed))"
  case .networkChanged: "the network behind the host changed"
  case .offloadsChanged: "the host changed what it does for this device"
  case .virtualFunctionOffered(let serial):
    "the host offers a virtual function (serial \(serial)); traffic stays on this device"
  case .virtualFunctionRevoked: "the host took the virtual function back"
  case .dataPath(let isVirtual): "data path: \(isVirtual ? "virtual function" : "synthetic")"
  case .sendTable: nil
  case .ended(let error): "ended: \(error)"
  }
}

func linkSpeedText(_ bitsPerSecond: UInt64) -> String {
  switch bitsPerSecond {
  case 0: "unknown"
  case 1_000_000_000...: "\(decimal(Double(bitsPerSecond) / 1e9, 0)) Gbit/s"
  default: "\(decimal(Double(bitsPerSecond) / 1e6, 0)) Mbit/s"
  }
}
