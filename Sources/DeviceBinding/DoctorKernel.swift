// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus
import VMBusLinux

extension Doctor {
  /// What the machine is, and whether it has a bus.
  var machine: [Finding] {
    guard bus.exists else {
      return [
        isHyperV
          ? Finding(
            "machine", .fault, "a guest of Hyper-V whose kernel has no VMBus",
            remedy: "modprobe hv_vmbus")
          : Finding(
            "machine", .fault, "not a guest of Hyper-V: there are no VMBus devices",
            remedy: "vmbusctl simulate, for drivers on a simulated host")
      ]
    }
    let count = (try? bus.names(in: "devices").count) ?? 0
    return [
      count > 0
        ? Finding("machine", .ok, "a VMBus with \(count) device(s)")
        : Finding("machine", .warning, "a VMBus to which the host offers no device")
    ]
  }

  /// Its age, and what it was built with.
  var kernel: [Finding] {
    guard let name = kernelName, let release else {
      return [
        Finding(
          "kernel", .fault, "\(paths.processes)/sys/kernel/osrelease says no release",
          remedy: "mount -t proc proc /proc")
      ]
    }
    var found: [Finding] = []
    if release < KernelRelease(4, 18) {
      found.append(
        Finding(
          "kernel", .fault, "Linux \(name) has no driver_override for VMBus",
          remedy: "use Linux 6.12 or newer"))
    } else if release < KernelRelease(6, 10) {
      found.append(
        Finding(
          "kernel", .warning, "Linux \(name) gives user space no channel without a monitor",
          remedy: "use Linux 6.12 or newer"))
    } else {
      found.append(Finding("kernel", .ok, "Linux \(name)"))
    }
    return found + configuration(name)
  }

  /// What was left out of the kernel, where a distribution says it. The other way round it says little:
  /// modules may not be installed.
  private func configuration(_ release: String) -> [Finding] {
    let places = [("boot", "config-\(release)"), ("lib/modules/\(release)", "config")]
    guard
      let text = places.lazy.compactMap({
        text("\(paths.root)/\($0.0)", $0.1, limit: 1 << 20)
      }).first
    else { return [] }
    let missing = ["CONFIG_HYPERV", "CONFIG_UIO", "CONFIG_UIO_HV_GENERIC"].filter { option in
      !text.split(separator: "\n").contains { $0 == "\(option)=y" || $0 == "\(option)=m" }
    }
    guard !missing.isEmpty else {
      return [Finding("kernel configuration", .ok, "VMBus and UIO are in it")]
    }
    return [
      Finding(
        "kernel configuration", isLoaded(BindableDriver.module.rawValue) ? .warning : .fault,
        "this kernel was built without \(missing.joined(separator: ", "))",
        remedy: "use a kernel that has it, or build kmod/ and load hv_uservsc")
    ]
  }

  // MARK: - Modules

  /// The kernel's two drivers for user space. One is enough.
  var modules: [Finding] {
    let hasModule = isLoaded(BindableDriver.module.rawValue)
    let (uio, module) = (BindableDriver.uio.rawValue, BindableDriver.module.rawValue)
    return [
      isLoaded(uio)
        ? Finding(uio, .ok, "loaded")
        : isAvailable(uio)
          ? Finding(
            uio, hasModule ? .ok : .warning, "installed, and not loaded", remedy: "modprobe \(uio)")
          : Finding(
            uio, hasModule ? .ok : .fault, "this kernel has no such module",
            remedy: "install the kernel's modules, or build kmod/ and load hv_uservsc"),
      hasModule
        ? Finding(module, .ok, "loaded")
        : isAvailable(module)
          ? Finding(module, .ok, "installed, and not loaded", remedy: "modprobe \(module)")
          : Finding(module, .ok, "not installed: it is an extra (kmod/)"),
    ]
  }

  private func isAvailable(_ module: String) -> Bool {
    guard let kernelName else { return false }
    return ["lib/modules", "usr/lib/modules"].contains { place in
      ["modules.dep", "modules.builtin"].contains { list in
        let text = text("\(paths.root)/\(place)/\(kernelName)", list, limit: 1 << 22) ?? ""
        // kernel/drivers/uio/uio_hv_generic.ko.xz: what it needs
        return text.split(separator: "\n").contains { $0.contains("/\(module).ko") }
      }
    }
  }

  // MARK: - Isolation

  /// What the machine's memory means for each transport.
  var isolationFinding: Finding {
    switch isolation {
    case .none:
      return Finding("isolation", .ok, "\(isolation): all memory can be used for DMA")
    case .unknown:
      return Finding(
        "isolation", .warning,
        "\(isolation): without hv_uservsc drivers want to be told which memory channels use",
        remedy: "--confidentiality host-visible, ring or ring+external")
    case .isolated:
      guard !isLoaded(BindableDriver.module.rawValue) else {
        return Finding("isolation", .ok, "\(isolation): hv_uservsc gives drivers what they need")
      }
      return Finding(
        "isolation", .warning,
        "\(isolation): uio_hv_generic gives drivers no host-visible memory, so that only channels whose external memory is encrypted can do I/O, and none with a monitor be signalled",
        remedy:
          "build kmod/, then modprobe hv_uservsc, and vmbusctl bind DEVICE --driver hv_uservsc")
    }
  }
}
