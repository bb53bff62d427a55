// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus

extension Doctor {
  /// The words of a line of `/proc/self/status`.
  func processStatus(_ key: String) -> [Substring] {
    let status = text("\(paths.processes)/self", "status") ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("\(key):") }
    return line.map {
      $0.dropFirst(key.count + 1).split(whereSeparator: { $0 == "\t" || $0 == " " })
    } ?? []
  }

  var isRoot: Bool { processStatus("Uid").dropFirst().first == "0" }

  /// What whoever asks may do: a driver that he starts may do the same.
  var rights: [Finding] {
    let effective = processStatus("CapEff").first.flatMap { UInt64($0, radix: 16) } ?? 0
    let needs: [(bit: UInt64, name: String, use: String)] = [
      (21, "CAP_SYS_ADMIN", "physical addresses for DMA with uio_hv_generic"),
      (17, "CAP_SYS_RAWIO", "PCI functions without an IOMMU"),
    ]
    let missing = needs.filter { effective >> $0.bit & 1 == 0 }
    guard !missing.isEmpty else {
      return [Finding("privileges", .ok, needs.map(\.name).joined(separator: " and "))]
    }
    return missing.map {
      Finding(
        "privileges", .warning, "this process has no \($0.name): \($0.use)",
        remedy: "sudo, or start the driver from its unit")
    }
  }

  /// Memory for DMA with `uio_hv_generic` and `vfio-pci` without an IOMMU.
  var hugePages: Finding {
    let directory = "\(paths.sysfs)/kernel/mm/hugepages/hugepages-2048kB"
    func count(_ name: String) -> Int? {
      text(directory, name).flatMap { SysfsNumber.decimal($0) }
    }
    guard let all = count("nr_hugepages"), let free = count("free_hugepages") else {
      return Finding("huge pages", .warning, "this kernel has none of 2 MiB")
    }
    let more = "sysctl -w vm.nr_hugepages=\(all + 128)"
    if all == 0 {
      return Finding(
        "huge pages", .warning, "none: drivers on uio_hv_generic have no memory for DMA",
        remedy: more)
    }
    return free == 0
      ? Finding("huge pages", .warning, "all \(all) are in use", remedy: more)
      : Finding("huge pages", .ok, "\(free) of \(all) are free")
  }
}
