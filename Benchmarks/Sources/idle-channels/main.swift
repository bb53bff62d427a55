// SPDX-License-Identifier: Apache-2.0

// Opens many channels on one worker, leaves them alone for a while, and prints how much processor
// time this process, host and guest, used for each second of it; then the same with one channel
// that is polled all the time.

import Dispatch
import Glibc
import SimulatedBus
import SimulatedHost
import VSC

/// A device that waits for packets which never come.
struct IdleVSP: VSP {
  let index: Int

  var offer: OfferChannel {
    var offer = OfferChannel()
    offer.interfaceID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a004"
    offer.instanceID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e10000"
    offer.instanceID.wireBytes[14] = UInt8(truncatingIfNeeded: index >> 8)
    offer.instanceID.wireBytes[15] = UInt8(truncatingIfNeeded: index)
    return offer
  }

  func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    _ = worker.attach(Server(channel: channel))
  }

  struct Server: Pollable, ~Copyable {
    var channel: HostChannel

    mutating func poll(budget: Int) -> Int? {
      guard let packet = try? channel.receive() else { return channel.isClosed ? nil : 0 }
      return packet.payloadByteCount
    }

    mutating func arm() -> Bool { channel.arm() }
    mutating func disarm() { channel.disarm() }
  }
}

/// The driver for it.
struct IdleVSC: VSC {
  static var deviceClass: DeviceClass { DeviceClass("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a004") }
  var channelParameters: ChannelParameters { ChannelParameters(ringByteCount: 8192) }

  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    _ = worker.attach(Client(channel: channel))
  }

  struct Client<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
    var channel: Channel<Ring, External>

    init(channel: consuming Channel<Ring, External>) { self.channel = channel }

    mutating func poll(budget: Int) -> Int? {
      do throws(ChannelError) {
        return try channel.receive() == nil ? 0 : 1
      } catch {
        return nil
      }
    }

    mutating func arm() -> Bool { channel.arm() }
    mutating func disarm() { channel.disarm() }
  }
}

/// Seconds of processor time, of all threads.
func processorTime() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Processor seconds per second with so many open channels.
func measure(_ count: Int, seconds: Double, spinRounds: Int) async throws -> Double {
  let host = try SimulatedHost(path: "/tmp/vmbus-idle-\(getpid()).sock")
  for index in 0..<count { host.add(IdleVSP(index: index)) }
  let bus = try await SimulatedBus.connect(path: host.path)
  let worker = try Worker(.init(name: "idle", spinRounds: spinRounds))
  let devices = bus.devices.map { Device($0, workers: [worker]) }
  guard devices.count == count else { throw Missing() }
  for device in devices { try await IdleVSC().start(device) }
  try await Task.sleep(for: .seconds(0.5))
  let before = processorTime()
  try await Task.sleep(for: .seconds(seconds))
  let used = (processorTime() - before) / seconds
  worker.stop()
  for device in devices { await device.close() }
  await bus.disconnect()
  host.stop()
  return used
}

struct Missing: Error {}

let arguments = CommandLine.arguments.dropFirst().compactMap { Double($0) }
guard arguments.count == 2, arguments[0] >= 1, arguments[0] <= 2000, arguments[1] > 0 else {
  print("usage: idle-channels CHANNELS SECONDS")
  exit(64)
}
let idle = try await measure(Int(arguments[0]), seconds: arguments[1], spinRounds: 2000)
let polled = try await measure(1, seconds: arguments[1], spinRounds: .max)
print(idle, polled)
