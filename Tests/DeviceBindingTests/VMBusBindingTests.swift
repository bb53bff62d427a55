// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import TestSupport
import Testing
import VMBus

@testable import DeviceBinding

@Suite struct VMBusBindingTests {
  private func error(_ body: () async throws -> BindingOutcome) async -> BindingError? {
    do {
      _ = try await body()
      return nil
    } catch {
      return error as? BindingError
    }
  }

  // MARK: - bind

  @Test func aDeviceChangesHands() async throws {
    let kernel = try FakeVMBus()
    let outcome = try await kernel.binding().bind(kernel.guid, to: .uio)
    #expect(
      outcome
        == BindingOutcome(
          device: FakeVMBus.name, driver: "uio_hv_generic", previousDriver: "hv_storvsc",
          node: kernel.node, isChanged: true))
    #expect(
      kernel.writes == [
        "driver_override uio_hv_generic", "driver/unbind \(FakeVMBus.name)",
        "drivers/uio_hv_generic/bind \(FakeVMBus.name)",
      ])
    // Once more is nothing.
    let again = try await kernel.binding().bind(kernel.guid, to: .uio)
    #expect(!again.isChanged && again.node == kernel.node && kernel.writes.count == 3)
  }

  @Test func fromOneDriverOfUserSpaceToTheOther() async throws {
    let kernel = try FakeVMBus(driver: "uio_hv_generic")
    let outcome = try await kernel.binding().bind(kernel.guid, to: .module)
    #expect(outcome.node == "\(kernel.paths.devices)/vmbus/\(FakeVMBus.name)")
    #expect(kernel.driver == "hv_uservsc" && kernel.override == "hv_uservsc")
  }

  @Test func aDeviceOfNobodyIsNotUnbound() async throws {
    let kernel = try FakeVMBus(driver: nil)
    let outcome = try await kernel.binding().bind(kernel.guid, to: .uio)
    #expect(outcome.previousDriver == nil && kernel.driver == "uio_hv_generic")
    #expect(kernel.writes.count == 2)
  }

  @Test func withoutAnOverrideTheDriverIsToldOfTheClass() async throws {
    let kernel = try FakeVMBus(flaws: [.hasNoOverride])
    let outcome = try await kernel.binding().bind(kernel.guid, to: .uio)
    #expect(outcome.driver == "uio_hv_generic")
    #expect(kernel.writes.contains("drivers/uio_hv_generic/new_id \(FakeVMBus.scsi)"))
  }

  @Test func aDriverThatIsNotLoadedTouchesNothing() async throws {
    let kernel = try FakeVMBus(loaded: [])
    let error = await error {
      try await kernel.binding().bind(kernel.guid, to: .module)
    }
    #expect(error == .notLoaded(driver: "hv_uservsc"))
    #expect(error?.remedy == "modprobe hv_uservsc" && kernel.writes.isEmpty)
  }

  @Test func whatIsNotThereIsNotBound() async throws {
    let kernel = try FakeVMBus()
    let error = await error {
      try await kernel.binding().bind(GUID(), to: .uio)
    }
    #expect(error == .notThere("\(GUID())") && kernel.writes.isEmpty)
  }

  // MARK: - Undoing

  @Test func whatTheDriverRefusesIsUndone() async throws {
    let kernel = try FakeVMBus(flaws: [.refuses])
    let error = await error {
      try await kernel.binding().bind(kernel.guid, to: .uio)
    }
    guard case .refused(let path, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(path.hasSuffix("drivers/uio_hv_generic/bind"))
    #expect(kernel.driver == "hv_storvsc" && kernel.override == "(null)")
  }

  @Test func aNodeThatDoesNotComeIsUndone() async throws {
    let kernel = try FakeVMBus(flaws: [.makesNoNode])
    let error = await error {
      try await kernel.binding().bind(kernel.guid, to: .module)
    }
    #expect(
      error == .notSettled(FakeVMBus.name, driver: "hv_uservsc", wanted: "hv_uservsc"))
    #expect(kernel.driver == "hv_storvsc" && kernel.override == "(null)")
  }

  /// As a rule leaves it that keeps a device which the kernel's driver has already.
  @Test func whatWasKeptBeforeIsKeptAfter() async throws {
    let kernel = try FakeVMBus(flaws: [.makesNoNode])
    try kernel.tree.write(["\(FakeVMBus.device)/driver_override": "uio_hv_generic"])
    let error = await error {
      try await kernel.binding().bind(kernel.guid, to: .uio)
    }
    #expect(error != nil)
    #expect(kernel.driver == "hv_storvsc" && kernel.override == "uio_hv_generic")
  }

  @Test func aCancelledTaskUndoes() async throws {
    let kernel = try FakeVMBus(flaws: [.makesNoNode])
    let binding = kernel.binding(attempts: 10_000)
    let guid = kernel.guid
    let task = Task { try await binding.bind(guid, to: .uio) }
    while kernel.driver != "uio_hv_generic" { try await Task.sleep(for: .milliseconds(1)) }
    task.cancel()
    let result = await task.result
    #expect(throws: BindingError.interrupted(FakeVMBus.name)) { try result.get() }
    #expect(kernel.driver == "hv_storvsc" && kernel.override == "(null)")
  }

  @Test func aDeviceThatNobodyTakesBackIsToldOf() async throws {
    let kernel = try FakeVMBus(flaws: [.refuses, .takesNothingBack])
    let error = await error {
      try await kernel.binding().bind(kernel.guid, to: .uio)
    }
    guard case .notUndone(_, _, let driver) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(driver == "hv_storvsc")
  }

  // MARK: - In use

  private func addDisk(_ kernel: FakeVMBus) throws {
    let disk = "\(FakeVMBus.device)/host0/target0:0:0/0:0:0:0/block/sda"
    try kernel.tree.write(["\(disk)/dev": "8:0", "\(disk)/sda1/dev": "8:1"])
    try kernel.tree.link("\(disk)/subsystem", to: "../../../../class/block")
    try kernel.tree.write([
      "proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw"
    ])
  }

  @Test func aMountedDiskStays() async throws {
    let kernel = try FakeVMBus()
    try addDisk(kernel)
    let bodies: [() async throws -> BindingOutcome] = [
      { try await kernel.binding().bind(kernel.guid, to: .uio) },
      { try await kernel.binding().unbind(kernel.guid) },
    ]
    for body in bodies {
      #expect(await error(body) == .inUse(FakeVMBus.name, by: ["sda1 (mounted at /)"]))
    }
    #expect(kernel.writes.isEmpty && kernel.driver == "hv_storvsc")
  }

  /// A service with a /tmp of its own has that on the same disk.
  @Test func whatTheSystemSeesIsTold() async throws {
    let kernel = try FakeVMBus()
    try addDisk(kernel)
    try kernel.tree.write([
      "proc/1/mountinfo": """
      22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
      31 22 8:1 /srv /srv rw,relatime shared:9 - ext4 /dev/root rw
      """,
      "proc/self/mountinfo": "22 1 8:1 /tmp /var/tmp rw,relatime shared:1 - ext4 /dev/root rw",
    ])
    let error = await error { try await kernel.binding().unbind(kernel.guid) }
    #expect(error == .inUse(FakeVMBus.name, by: ["sda1 (mounted at /)"]))
  }

  @Test func whoeverInsistsIsToldWhatItWas() async throws {
    let kernel = try FakeVMBus()
    try addDisk(kernel)
    let outcome = try await kernel.binding().bind(kernel.guid, to: .uio, force: true)
    #expect(outcome.driver == "uio_hv_generic" && outcome.warnings.count == 1)
    #expect(outcome.warnings.first?.contains("sda1 (mounted at /)") == true)
  }

  @Test func anOpenNodeStays() async throws {
    let kernel = try FakeVMBus(driver: "uio_hv_generic")
    try kernel.tree.link("proc/4711/fd/5", to: kernel.node)
    try kernel.tree.write([
      "proc/4711/comm": "vsc-storage",
      "proc/4711/cgroup": "0::/system.slice/system-vsc.slice/vsc-storage@x.service",
    ])
    let holder = NodeHolder(
      process: 4711, name: "vsc-storage", service: "vsc-storage@x.service")
    let bodies: [() async throws -> BindingOutcome] = [
      { try await kernel.binding().unbind(kernel.guid) },
      { try await kernel.binding().restore(kernel.guid) },
      {
        try await kernel.binding().bind(kernel.guid, to: .module)
      },
    ]
    for body in bodies {
      let error = await error(body)
      #expect(error == .open(node: kernel.node, by: [holder], isStranding: true))
      #expect(error?.remedy?.contains("systemctl stop vsc-storage@x.service") == true)
    }
    #expect(kernel.writes.isEmpty)
    let outcome = try await kernel.binding().restore(kernel.guid, force: true)
    #expect(outcome.driver == "hv_storvsc")
    #expect(outcome.warnings.first?.contains("process 4711 (vsc-storage)") == true)
  }

  // MARK: - unbind, restore

  @Test func aDeviceCanBeNobodys() async throws {
    let kernel = try FakeVMBus()
    let outcome = try await kernel.binding().unbind(kernel.guid)
    #expect(outcome.driver == nil && outcome.previousDriver == "hv_storvsc" && outcome.isChanged)
    let again = try await kernel.binding().unbind(kernel.guid)
    #expect(!again.isChanged && kernel.writes == ["driver/unbind \(FakeVMBus.name)"])
  }

  @Test func aDeviceGoesBack() async throws {
    let kernel = try FakeVMBus()
    _ = try await kernel.binding().bind(kernel.guid, to: .uio)
    let outcome = try await kernel.binding().restore(kernel.guid)
    #expect(outcome.driver == "hv_storvsc" && outcome.previousDriver == "uio_hv_generic")
    #expect(kernel.override == "(null)")
    let count = kernel.writes.count
    let again = try await kernel.binding().restore(kernel.guid)
    #expect(!again.isChanged && kernel.writes.count == count)
  }

  @Test func aDeviceOfNobodyGoesBackToo() async throws {
    let kernel = try FakeVMBus(driver: nil)
    let outcome = try await kernel.binding().restore(kernel.guid)
    #expect(outcome.isChanged && kernel.driver == "hv_storvsc")
  }

  /// The kernel's driver keeps it, and nobody keeps it for another one.
  @Test func onlyWhatItIsKeptForIsForgotten() async throws {
    let kernel = try FakeVMBus()
    try kernel.tree.write(["\(FakeVMBus.device)/driver_override": "uio_hv_generic"])
    let outcome = try await kernel.binding().restore(kernel.guid)
    #expect(outcome.driver == "hv_storvsc" && kernel.override == "(null)")
    #expect(kernel.writes == ["driver_override "])
  }

  @Test func aDeviceThatWasTakenForItsClassIsNotTakenAgain() async throws {
    let kernel = try FakeVMBus(driver: "uio_hv_generic")
    let outcome = try await kernel.binding().restore(kernel.guid)
    #expect(outcome.driver == "hv_storvsc")
    #expect(kernel.writes.contains("drivers/uio_hv_generic/remove_id \(FakeVMBus.scsi)"))
  }

  @Test func aMissingDriverOfTheKernelIsNamed() async throws {
    let kernel = try FakeVMBus(driver: "uio_hv_generic", flaws: [.takesNothingBack])
    let error = await error {
      try await kernel.binding().restore(kernel.guid)
    }
    #expect(error == .noKernelDriver(FakeVMBus.name, module: "hv_storvsc"))
    #expect(error?.remedy?.hasPrefix("modprobe hv_storvsc") == true)
  }
}
