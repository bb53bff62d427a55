// SPDX-License-Identifier: Apache-2.0

import TestSupport
import Testing
import VMBus

@testable import DeviceBinding

@Suite struct DoctorTests {
  private static let isolated = Isolation.isolated(
    IsolatedMachine(kind: .vbs, hasParavisor: true, offersConfidentialVMBus: true))

  /// A machine where all is well, with a disk for user space.
  private func machine(driver: String? = "uio_hv_generic") throws -> FakeVMBus {
    let kernel = try FakeVMBus(driver: driver)
    try kernel.tree.write([
      "boot/config-6.12.107-amd64": "CONFIG_HYPERV=y\nCONFIG_UIO=m\nCONFIG_UIO_HV_GENERIC=m",
      "run/udev/control": "", "run/systemd/system/x": "",
      "usr/lib/udev/rules.d/60-swift-vmbus.rules": "SUBSYSTEM==\"uio\", GROUP=\"vmbus\"",
      "etc/group": "root:x:0:\nvmbus:x:990:someone",
      "proc/self/status":
        "Name:\tvmbusctl\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 \nCapEff:\t000001ffffffffff",
      "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64",
      "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "60",
    ])
    for unit in Doctor.units { try kernel.tree.write(["usr/lib/systemd/system/\(unit)": "[Unit]"]) }
    return kernel
  }

  private func findings(
    _ kernel: FakeVMBus, _ isolation: Isolation = .none(.conventional)
  ) -> [Finding] {
    Doctor(kernel.paths, isolation: isolation).findings
  }

  /// What is not well, as "subject: text".
  private func complaints(
    _ kernel: FakeVMBus, _ isolation: Isolation = .none(.conventional)
  ) -> [Finding] {
    findings(kernel, isolation).filter { $0.verdict != .ok }
  }

  @Test func aWellMachineHasNoComplaint() throws {
    let kernel = try machine()
    #expect(complaints(kernel) == [])
    #expect(
      findings(kernel).last
        == Finding(FakeVMBus.name, .ok, "scsi: \(kernel.node) is free for a driver"))
  }

  /// Each thing that can be wrong, what is said of it, and what mends it.
  @Test(arguments: [
    ("proc/sys/kernel/osrelease", "6.1.0", "kernel", "warning", "use Linux 6.12 or newer"),
    ("proc/sys/kernel/osrelease", "4.17.0", "kernel", "fault", "use Linux 6.12 or newer"),
    (
      "boot/config-6.12.107-amd64",
      "CONFIG_HYPERV=y\n# CONFIG_UIO_HV_GENERIC is not set\nCONFIG_UIO=m",
      "kernel configuration", "warning",
      "use a kernel that has it, or build kmod/ and load hv_uservsc"
    ),
    (
      "etc/udev/rules.d/60-swift-vmbus.rules", "GROUP=\"vmbus\"", "udev rules", "warning",
      "rm /etc/udev/rules.d/60-swift-vmbus.rules, unless it was made to be used instead"
    ),
    (
      "usr/lib/udev/rules.d/60-swift-vmbus.rules", "# nothing", "udev rules", "warning",
      "rm /usr/lib/udev/rules.d/60-swift-vmbus.rules, or write one there"
    ),
    ("etc/group", "root:x:0:", "group vmbus", "fault", "groupadd --system vmbus"),
    (
      "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0", "huge pages", "warning",
      "sysctl -w vm.nr_hugepages=128"
    ),
    (
      "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0", "huge pages", "warning",
      "sysctl -w vm.nr_hugepages=192"
    ),
    (
      "proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000020000", "privileges", "warning",
      "sudo, or start the driver from its unit"
    ),
    (
      "proc/self/status",
      "Uid:\t1000\t1000\t1000\t1000\nGid:\t7\nGroups:\t7 8\nCapEff:\t000001ffffffffff",
      "group vmbus", "warning", "usermod -aG vmbus USER, then log in anew"
    ),
  ])
  func whatIsWrongIsSaid(
    file: String, text: String, subject: String, verdict: String, remedy: String
  ) throws {
    let kernel = try machine()
    try kernel.tree.write([file: text])
    let complaints = complaints(kernel)
    #expect(complaints.map(\.subject) == [subject])
    #expect(complaints.first?.verdict.rawValue == verdict && complaints.first?.remedy == remedy)
  }

  @Test(arguments: [
    ("run/udev", "udevd"), ("usr/lib/udev", "udev rules"), ("run/systemd", "systemd"),
    ("usr/lib/systemd/system/vsc-nvme@.service", "unit vsc-nvme@.service"),
  ])
  func whatIsMissingIsSaid(path: String, subject: String) throws {
    let kernel = try machine()
    try kernel.tree.remove(path)
    let complaints = complaints(kernel)
    #expect(complaints.map(\.subject) == [subject] && complaints.first?.verdict == .warning)
  }

  @Test func aMaskedUnitIsAFault() throws {
    let kernel = try machine()
    try kernel.tree.link("etc/systemd/system/vsc-storage@.service", to: "/dev/null")
    let complaint = try #require(complaints(kernel).first)
    #expect(complaint.verdict == .fault)
    #expect(complaint.remedy == "systemctl unmask vsc-storage@.service")
  }

  @Test func rulesThatContradictEachOtherAreAFault() throws {
    let kernel = try machine()
    let rule = "ACTION==\"add\", SUBSYSTEM==\"vmbus\", KERNEL==\"\(FakeVMBus.name)\""
    try kernel.tree.write([
      "etc/udev/rules.d/59-mine.rules": "\(rule), ENV{VMBUS_DRIVER}=\"uio_hv_generic\"",
      "etc/udev/rules.d/61-his.rules":
        "# \(rule), ATTR{driver_override}=\"vfio\"\n\(rule), \\\n  ATTR{driver_override}=\"hv_uservsc\"",
    ])
    let complaint = try #require(complaints(kernel).first)
    #expect(complaint.verdict == .fault)
    #expect(
      complaint.text
        == "rules want \(FakeVMBus.name) for hv_uservsc (/etc/udev/rules.d/61-his.rules) and for uio_hv_generic (/etc/udev/rules.d/59-mine.rules)"
    )
  }

  // MARK: - The machine

  @Test func aMachineWithoutABusIsAFault() throws {
    let kernel = try machine()
    try kernel.tree.remove("sys/bus")
    #expect(findings(kernel).first?.remedy == "modprobe hv_vmbus")
    let elsewhere = findings(kernel, .none(.notHyperV)).first
    #expect(elsewhere?.verdict == .fault && elsewhere?.text.hasPrefix("not a guest") == true)
  }

  @Test func aModuleThatIsThereIsOneToLoad() throws {
    let kernel = try machine(driver: "hv_storvsc")
    try kernel.tree.remove("sys/bus/vmbus/drivers/uio_hv_generic")
    // The other one is loaded.
    #expect(complaints(kernel).isEmpty)
    try kernel.tree.remove("sys/bus/vmbus/drivers/hv_uservsc")
    #expect(complaints(kernel).first?.verdict == .fault)
    try kernel.tree.write([
      "lib/modules/6.12.107-amd64/modules.dep":
        "kernel/drivers/uio/uio_hv_generic.ko.xz: kernel/drivers/uio/uio.ko.xz"
    ])
    let complaint = complaints(kernel).first
    #expect(complaint?.verdict == .warning && complaint?.remedy == "modprobe uio_hv_generic")
  }

  @Test func isolationSaysWhichTransportIsOfUse() throws {
    let kernel = try machine()
    #expect(complaints(kernel, Self.isolated).isEmpty)
    try kernel.tree.remove("sys/bus/vmbus/drivers/hv_uservsc")
    let complaint = complaints(kernel, Self.isolated).first
    #expect(complaint?.subject == "isolation" && complaint?.verdict == .warning)
  }

  // MARK: - Devices

  @Test func aDeviceThatItsDriverDidNotGetIsAFault() throws {
    let kernel = try machine(driver: "hv_storvsc")
    try kernel.tree.write(["\(FakeVMBus.device)/driver_override": "uio_hv_generic"])
    let complaint = try #require(complaints(kernel).first)
    #expect(
      complaint
        == Finding(
          FakeVMBus.name, .fault, "scsi: kept for uio_hv_generic, and with the driver hv_storvsc",
          remedy:
            "vmbusctl bind \(FakeVMBus.name) --driver uio_hv_generic, or vmbusctl restore \(FakeVMBus.name)"
        ))
  }

  @Test func aMissingNodeIsAFault() throws {
    let kernel = try machine()
    try kernel.tree.remove("dev/uio0")
    #expect(complaints(kernel).first?.text == "scsi: \(kernel.node) is missing")
    try kernel.setDriver("hv_uservsc")
    #expect(complaints(kernel).isEmpty)
    try kernel.tree.remove("dev/vmbus")
    #expect(complaints(kernel).first?.text.hasSuffix("\(FakeVMBus.name) is missing") == true)
  }

  @Test func anOpenChannelIsSomebodysOrLost() throws {
    let kernel = try machine()
    try kernel.tree.write(["\(FakeVMBus.device)/state": "3"])
    #expect(complaints(kernel).first?.remedy == "restart this machine (reboot)")
    try kernel.tree.link("proc/12/fd/3", to: kernel.node)
    try kernel.tree.write(["proc/12/comm": "dpdk"])
    let complaint = complaints(kernel).first
    #expect(complaint?.verdict == .warning)
    #expect(complaint?.text == "scsi: process 12 (dpdk) has \(kernel.node) open without a lock")
  }
}
