// SPDX-License-Identifier: Apache-2.0

public import Logging
import NetworkProtocol
import PacketIO
import ProgramSupport
public import SimulatedHost
import SystemPackage
import VMBus

extension NICArgument {
  /// Who offers a network device: one machine's host and its paravisor have other instances and addresses.
  public enum Owner: Sendable {
    case host
    case paravisor
  }

  /// The network devices of a command line.
  ///
  /// - Throws: `ProgramFailure` for what can't be joined, as a TAP device.
  public static func devices(
    _ arguments: [NICArgument], of owner: Owner, logger: Logger
  ) throws -> [NetVSP] {
    var hubs: [String: NetworkSwitch] = [:]
    var devices: [NetVSP] = []
    for (index, argument) in arguments.enumerated() {
      devices.append(
        NetVSP(
          try argument.backend(index, &hubs), instance: instance(index, of: owner),
          address: argument.address ?? address(index, of: owner),
          configuration: argument.configuration, flags: argument.flags, logger: logger))
    }
    return devices
  }

  private func backend(
    _ index: Int, _ hubs: inout [String: NetworkSwitch]
  ) throws -> any NetworkBackend {
    switch kind {
    case .hub(let name):
      let hub = hubs[name] ?? NetworkSwitch()
      hubs[name] = hub
      return hub
    case .loopback: return LoopbackBackend()
    case .generator(let byteCount):
      guard byteCount <= configuration.mtu + 14 else {
        throw ProgramFailure(.usage, "--nic: frames of \(byteCount) bytes exceed the MTU")
      }
      return GeneratorBackend(byteCount: byteCount)
    case .sink: return GeneratorBackend.sink
    case .tap(let name): return try tap(name)
    case .capture(let path):
      do throws(Errno) {
        return CaptureBackend(try FrameCapture(path: path, interface: "nic\(index)"))
      } catch {
        throw ProgramFailure(.cannotCreate, "\(path): \(error)")
      }
    }
  }

  private func tap(_ name: String) throws -> TapBackend {
    do throws(TapError) {
      let device = try TapDevice(name: name, queueCount: configuration.maximumQueues)
      try device.setMTU(configuration.mtu)
      return TapBackend(device)
    } catch {
      throw ProgramFailure(.cannotCreate, "\(name): \(error)")
    }
  }

  /// The nth network device, the same each time.
  private static func instance(_ index: Int, of owner: Owner) -> GUID {
    var guid: GUID
    switch owner {
    case .host: guid = "5d15c000-0000-4000-8000-0000000e0000"
    case .paravisor: guid = "9a7a5150-0000-4000-8000-0000000e0000"
    }
    guid.wireBytes[14] = UInt8(truncatingIfNeeded: index >> 8)
    guid.wireBytes[15] = UInt8(truncatingIfNeeded: index)
    return guid
  }

  /// The address of the first guest; 16 guests of a device have addresses behind each other.
  private static func address(_ index: Int, of owner: Owner) -> MACAddress {
    let network = owner == .host ? 0xC0 : 0xC1
    var address = MACAddress()
    for (place, byte) in [0x00, 0x15, 0x5D, network, index & 0xFF, 0x01].enumerated() {
      address.rawValue |= UInt64(byte) << UInt64(8 * place)
    }
    return address
  }
}
