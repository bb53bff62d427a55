// SPDX-License-Identifier: Apache-2.0

import Dispatch
import VSC

/// Requests through a worker: polls, rounds, arming and sleeping, `Channel` and `Requests`.
func runWorker(_ packets: Int) throws {
  let device = try HeapDevice()
  let worker = try Worker(.init(name: "datapath", spinRounds: 0))
  try blocking { done in
    let opened = try await Device(device, workers: [worker]).open(ChannelParameters(), on: worker)
    switch consume opened {
    case .hostVisible(let channel):
      let host = try HeapHost(device)
      _ = worker.attach(EchoPath(channel: channel, host: host, packets: packets)) {
        done.signal()
      }
    default: throw WrongPacket()
    }
  }
  worker.stop()
}

private struct EchoPath: Pollable, ~Copyable {
  var channel: Channel<HostVisible, HostVisible>
  var host: HeapHost
  let packets: Int
  var requests = Requests<Int>(capacity: 32)
  var sent = 0
  var received = 0

  init(channel: consuming Channel<HostVisible, HostVisible>, host: consuming HeapHost, packets: Int)
  {
    self.channel = channel
    self.host = host
    self.packets = packets
  }

  mutating func poll(budget: Int) -> Int? {
    do {
      let payload = InlineArray<64, UInt8>(repeating: 3)
      while sent < packets, let id = requests.nextID {
        try channel.send(
          unsafe payload.span.bytes, transactionID: id, completionRequested: true)
        requests.insert(sent, deadline: .max)
        sent &+= 1
      }
      channel.flush()
      _ = try host.answerAll(unsafe payload.span.bytes)
      var work = 0
      while let packet = try channel.receive() {
        guard requests.complete(packet.transactionID) != nil else { throw WrongPacket() }
        received &+= 1
        work &+= 1
      }
      channel.flush()
      return received == packets ? nil : work
    } catch {
      fail("\(error)")
    }
  }

  // It never sleeps, but is asked each time.
  mutating func arm() -> Bool {
    _ = channel.arm()
    return true
  }

  mutating func disarm() { channel.disarm() }
}
