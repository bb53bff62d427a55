// SPDX-License-Identifier: Apache-2.0

// Sends a number of packets along one data path, for `scripts/check-datapath` to count what is
// called on the way. A path is a line of the table and a function in a file of its own.

import Glibc

let paths: [(name: String, run: (Int) throws -> Void)] =
  [
    ("ring", runRing),
    ("worker", runWorker),
    ("storage", runStorage),
    ("storage-1x1", runStorage1x1), ("storage-32x1", runStorage32x1),
    ("storage-256x1", runStorage256x1),
    ("storage-1x4", runStorage1x4), ("storage-32x4", runStorage32x4),
    ("storage-256x4", runStorage256x4),
    ("storage-uio", runStorageUIO),
    ("storage-module", runStorageModule),
    ("storage-monitor", runStorageMonitor),
    ("nvme", runNVMe), ("nvme-1", runNVMe1), ("nvme-32", runNVMe), ("nvme-256", runNVMe256),
    ("nvme-list", runNVMeList), ("nvme-times", runNVMeTimes),
    ("network-receive", runNetworkReceive),
    ("network-receive-4", runNetworkReceive4), ("network-receive-16", runNetworkReceive16),
    ("network-receive-64", runNetworkReceive64),
    ("network-send", runNetworkSend),
    ("network-send-4", runNetworkSend4), ("network-send-16", runNetworkSend16),
    ("network-send-64", runNetworkSend64),
    ("bounce", runBounce), ("broken-ring", runBrokenRing),
  ] + rowPaths + copyPaths + networkRowPaths

func fail(_ text: String) -> Never {
  let line = "datapath: \(text)\n"
  _ = unsafe write(2, line, line.utf8.count)
  exit(1)
}

let arguments = CommandLine.arguments.dropFirst()
guard arguments.count == 2, let count = Int(arguments.last ?? ""), count > 0,
  let path = paths.first(where: { $0.name == arguments.first })
else { fail("usage: datapath \(paths.map(\.name).joined(separator: "|")) PACKETS") }
do { try path.run(count) } catch { fail("\(path.name): \(error)") }
