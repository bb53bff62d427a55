// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import Foundation
import PackageDescription

let settings: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableExperimentalFeature("Lifetimes"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

// The nbdkit plugin needs nbdkit's header (Debian: nbdkit-plugin-dev). The libraries and the other
// programs must build without it, and a package can't ask pkg-config for a single target.
let hasNBDKit = ["/usr/include", "/usr/local/include"].contains {
  FileManager.default.fileExists(atPath: $0 + "/nbdkit-plugin.h")
}
let pluginProducts: [Product] =
  hasNBDKit
  ? [.library(name: "VSCStorageNBD", type: .dynamic, targets: ["VSCStorageNBD"])] : []
let pluginTargets: [Target] =
  hasNBDKit
  ? [
    .target(
      name: "CNBDKitPlugin", path: "CShims/CNBDKitPlugin",
      cSettings: [.enableWarning("all"), .enableWarning("extra"), .treatAllWarnings(as: .error)]),
    .target(
      name: "VSCStorageNBD",
      dependencies: [
        "CNBDKitPlugin", "DriverProgram", "NVMe", "StorageVSC", "VSC", arguments,
      ],
      swiftSettings: settings),
  ] : []

// KVM is not the same on other processors.
#if arch(x86_64)
  let machineProducts: [Product] = [
    .library(name: "VirtualMachine", targets: ["VirtualMachine"]),
    .executable(name: "vmbus-vm", targets: ["vmbus-vm"]),
  ]
  let machineTargets: [Target] = [
    .systemLibrary(name: "CKVM", path: "CShims/CKVM"),
    .target(
      name: "VirtualMachine",
      dependencies: ["CKVM", "CLinux", "Platform", "SimulatedLink", "VMBus", logging, system],
      swiftSettings: settings),
    .executableTarget(
      name: "vmbus-vm",
      dependencies: [
        "CLinux", "Platform", "ProgramSupport", "VirtualMachine", arguments, logging, system,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "VirtualMachineTests",
      dependencies: [
        "CKVM", "CLinux", "Platform", "SimulatedHost", "SimulatedLink", "VMBus",
        "VirtualMachine", logging,
      ],
      swiftSettings: settings),
  ]
#else
  let machineProducts: [Product] = []
  let machineTargets: [Target] = []
#endif

let package = Package(
  name: "swift-vmbus",
  products: [
    .library(name: "VMBus", targets: ["VMBus"]),
    .library(name: "VSC", targets: ["VSC"]),
    .library(name: "BlockStorage", targets: ["BlockStorage"]),
    .library(name: "StorageVSC", targets: ["StorageVSC"]),
    .library(name: "NVMe", targets: ["NVMe"]),
    .library(name: "NVMeProtocol", targets: ["NVMeProtocol"]),
    .library(name: "PCIFunction", targets: ["PCIFunction"]),
    .library(name: "NetworkProtocol", targets: ["NetworkProtocol"]),
    .library(name: "NetworkVSC", targets: ["NetworkVSC"]),
    .library(name: "BalloonVSC", targets: ["BalloonVSC"]),
    .library(name: "SimulatedHost", targets: ["SimulatedHost"]),
    .library(name: "SimulatedBus", targets: ["SimulatedBus"]),
    .library(name: "VMBusLinux", targets: ["VMBusLinux"]),
    .library(name: "VMBusUIO", targets: ["VMBusUIO"]),
    .library(name: "VMBusKernel", targets: ["VMBusKernel"]),
    .library(name: "DeviceBinding", targets: ["DeviceBinding"]),
    .library(name: "VFIOPCI", targets: ["VFIOPCI"]),
    .library(name: "DriverProgram", targets: ["DriverProgram"]),
    .executable(name: "vmbus-host", targets: ["vmbus-host"]),
    .executable(name: "nvme-host", targets: ["nvme-host"]),
    .executable(name: "vmbus-paravisor", targets: ["vmbus-paravisor"]),
    .executable(name: "vmbusctl", targets: ["vmbusctl"]),
    .executable(name: "vsc-nvme", targets: ["vsc-nvme"]),
    .executable(name: "vsc-storage", targets: ["vsc-storage"]),
    .executable(name: "vsc-balloon", targets: ["vsc-balloon"]),
    .executable(name: "vsc-network", targets: ["vsc-network"]),
    .executable(name: "vsc-echo", targets: ["vsc-echo"]),
  ] + pluginProducts + machineProducts,
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.5.0"),
  ],
  // From the bottom up: a target imports only what stands above it here.
  targets: [
    .systemLibrary(name: "CLinux", path: "CShims/CLinux"),
    .systemLibrary(name: "CVFIO", path: "CShims/CVFIO"),
    .systemLibrary(
      name: "CUdev", path: "CShims/CUdev", pkgConfig: "libudev",
      providers: [.apt(["libudev-dev"])]),
    .systemLibrary(
      name: "CBPF", path: "CShims/CBPF", pkgConfig: "libbpf", providers: [.apt(["libbpf-dev"])]),
    .systemLibrary(
      name: "CCrypto", path: "CShims/CCrypto", pkgConfig: "libcrypto",
      providers: [.apt(["libssl-dev"])]),
    // The kernel module's interface, in kmod.
    .systemLibrary(name: "CUserVSC", path: "CShims/CUserVSC"),
    .target(
      name: "Platform", dependencies: ["CLinux", "CUserVSC", system], swiftSettings: settings),
    .target(name: "VMBus", swiftSettings: settings),
    .target(name: "StorageProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .target(name: "NVMeProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .target(name: "BalloonProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .target(name: "NetworkProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .target(name: "IntegrationProtocol", dependencies: ["VMBus"], swiftSettings: settings),

    .target(
      name: "PacketIO", dependencies: ["CLinux", "NetworkProtocol", "Platform", "VMBus", system],
      swiftSettings: settings),

    .target(
      name: "SimulatedLink", dependencies: ["CLinux", "Platform", "VMBus", system],
      swiftSettings: settings),
    .target(
      name: "SimulatedHost",
      dependencies: [
        "BalloonProtocol", "CLinux", "IntegrationProtocol", "NetworkProtocol", "PacketIO",
        "Platform", "SimulatedLink", "StorageProtocol", "VMBus", logging, system,
      ],
      swiftSettings: settings),

    .target(
      name: "SimulatedNVMe",
      dependencies: [
        "CLinux", "NVMeProtocol", "Platform", "SimulatedHost", "SimulatedLink", "VMBus", system,
      ],
      swiftSettings: settings),

    .target(name: "VSC", dependencies: ["Platform", "VMBus"], swiftSettings: settings),
    .target(
      name: "PCIFunction", dependencies: ["CLinux", "Platform", "VMBus", "VSC"],
      swiftSettings: settings),
    .target(
      name: "BlockStorage",
      dependencies: ["NVMeProtocol", "Platform", "StorageProtocol", "VMBus", "VSC"],
      swiftSettings: settings),
    .target(
      name: "StorageVSC",
      dependencies: ["BlockStorage", "Platform", "StorageProtocol", "VMBus", "VSC"],
      swiftSettings: settings),
    .target(
      name: "NVMe",
      dependencies: [
        "BlockStorage", "CLinux", "NVMeProtocol", "PCIFunction", "Platform", "VMBus", "VSC",
      ],
      swiftSettings: settings),
    .target(
      name: "NetworkVSC",
      dependencies: ["NetworkProtocol", "PacketIO", "Platform", "VMBus", "VSC"],
      swiftSettings: settings),
    .target(
      name: "BalloonVSC",
      dependencies: ["BalloonProtocol", "CLinux", "Platform", "VMBus", "VSC", system],
      swiftSettings: settings),
    .target(
      name: "SimulatedBus",
      dependencies: ["CLinux", "Platform", "SimulatedLink", "VMBus", "VSC", logging, system],
      swiftSettings: settings),

    .target(
      name: "LinuxDevices", dependencies: ["CLinux", "Platform", "VMBus", "VSC", system],
      swiftSettings: settings),
    .target(
      name: "VMBusLinux",
      dependencies: [
        "CBPF", "CLinux", "CUdev", "LinuxDevices", "Platform", "VMBus", "VSC", system,
      ],
      // Built by scripts/build-bpf.
      resources: [.embedInCode("kernel_channels.bpf")],
      swiftSettings: settings),
    .target(
      name: "SimulatedPCI",
      dependencies: [
        "CLinux", "PCIFunction", "Platform", "SimulatedLink", "VMBus", "VSC", system,
      ],
      swiftSettings: settings),

    .target(
      name: "CRevocation", path: "CShims/CRevocation",
      cSettings: [.enableWarning("all"), .enableWarning("extra"), .treatAllWarnings(as: .error)]),
    .target(
      name: "VMBusUIO",
      dependencies: ["CLinux", "CRevocation", "Platform", "VMBus", "VMBusLinux", "VSC", system],
      swiftSettings: settings),

    .target(
      name: "VMBusKernel",
      dependencies: ["CLinux", "CUserVSC", "Platform", "VMBus", "VMBusLinux", "VSC", system],
      swiftSettings: settings),

    .target(
      name: "VFIOPCI",
      dependencies: [
        "CLinux", "CRevocation", "CVFIO", "LinuxDevices", "PCIFunction", "Platform", "VMBus", "VSC",
        system,
      ],
      swiftSettings: settings),

    .target(
      name: "DeviceBinding",
      dependencies: [
        "CLinux", "LinuxDevices", "PCIFunction", "Platform", "VFIOPCI", "VMBus", "VMBusKernel",
        "VMBusLinux", "VMBusUIO", "VSC", system,
      ],
      swiftSettings: settings),

    .target(
      name: "ProgramSupport", dependencies: ["CLinux", "Platform", arguments, system],
      swiftSettings: settings),
    .target(
      name: "DriverProgram",
      dependencies: [
        "PCIFunction", "Platform", "ProgramSupport", "SimulatedBus", "SimulatedPCI", "VFIOPCI",
        "VMBusKernel", "VMBusLinux", "VMBusUIO", "VSC", arguments, logging, system,
      ],
      swiftSettings: settings),
    .target(
      name: "HostPrograms",
      dependencies: [
        "NetworkProtocol", "PacketIO", "ProgramSupport", "SimulatedHost", "VMBus", arguments,
        logging, system,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "vmbus-host",
      dependencies: [
        "HostPrograms", "IntegrationProtocol", "NetworkProtocol", "PacketIO", "Platform",
        "ProgramSupport",
        "SimulatedHost", "StorageProtocol", "VMBus", arguments, logging, system,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "nvme-host",
      dependencies: [
        "Platform", "ProgramSupport", "SimulatedHost", "SimulatedNVMe", arguments, system,
      ],
      swiftSettings: settings),
    .target(
      name: "Paravisor",
      dependencies: [
        "CCrypto", "Platform", "SimulatedBus", "SimulatedHost", "StorageVSC", "VMBus", "VSC",
        logging, system,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "vmbus-paravisor",
      dependencies: [
        "CLinux", "HostPrograms", "Paravisor", "Platform", "ProgramSupport", "SimulatedHost",
        "VMBus", arguments, logging, system,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "vmbusctl",
      dependencies: [
        "DeviceBinding", "DriverProgram", "LinuxDevices", "PCIFunction", "Platform",
        "ProgramSupport", "SimulatedBus", "VMBus", "VMBusLinux", "VSC", arguments,
      ],
      swiftSettings: settings),

    // The driver that README.md shows.
    .target(
      name: "EchoVSC", dependencies: ["VSC"], path: "Examples/EchoVSC", swiftSettings: settings),
    // And a program of it.
    .executableTarget(
      name: "vsc-echo", dependencies: ["DriverProgram", "EchoVSC", arguments],
      path: "Examples/EchoProgram", swiftSettings: settings),
    // The commands that the programs of all disks have.
    .target(
      name: "BlockPrograms",
      dependencies: [
        "BlockStorage", "CLinux", "NVMe", "Platform", "ProgramSupport", "StorageVSC", "VSC",
        arguments, system,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "vsc-storage",
      dependencies: [
        "BlockPrograms", "DriverProgram", "Platform", "StorageVSC", "VSC", arguments,
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "vsc-nvme",
      dependencies: [
        "BlockPrograms", "BlockStorage", "DriverProgram", "NVMe", "PCIFunction", "VSC", arguments,
      ],
      swiftSettings: settings),

    .executableTarget(
      name: "vsc-balloon",
      dependencies: [
        "BalloonVSC", "CLinux", "DriverProgram", "Platform", "VSC", arguments, logging,
      ],
      swiftSettings: settings),

    .executableTarget(
      name: "vsc-network",
      dependencies: [
        "CLinux", "DriverProgram", "NetworkProtocol", "NetworkVSC", "PacketIO", "Platform", "VSC",
        arguments, logging, system,
      ],
      swiftSettings: settings),

    .target(name: "Footprint", path: "Tests/Footprint", swiftSettings: settings),
    .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: settings),
    .target(
      name: "LinuxTestSupport", dependencies: ["LinuxDevices", "TestSupport"],
      path: "Tests/LinuxTestSupport", swiftSettings: settings),
    // What scripts/vm-test runs in a guest.
    .executableTarget(
      name: "open-close",
      dependencies: [
        "BalloonVSC", "Footprint", "Platform", "VMBusKernel", "VMBusLinux", "VMBusUIO", "VSC",
      ],
      path: "Tests/OpenClose", swiftSettings: settings),
    .executableTarget(
      name: "vfio-probe",
      dependencies: ["CLinux", "PCIFunction", "Platform", "VFIOPCI", "VMBus", "VSC"],
      path: "Tests/VFIOProbe", swiftSettings: settings),
    .testTarget(name: "PlatformTests", dependencies: ["Platform"], swiftSettings: settings),
    .testTarget(
      name: "ProgramSupportTests", dependencies: ["Platform", "ProgramSupport", system],
      swiftSettings: settings),
    .testTarget(
      name: "PacketIOTests",
      dependencies: ["NetworkProtocol", "PacketIO", "Platform", "VMBus", system],
      swiftSettings: settings),
    .testTarget(
      name: "SimulatedBusTests",
      dependencies: [
        "BalloonProtocol", "BalloonVSC", "CLinux", "EchoVSC", "Footprint", "NetworkProtocol",
        "NetworkVSC", "Platform", "SimulatedBus", "SimulatedHost", "SimulatedLink",
        "StorageProtocol",
        "StorageVSC", "TestSupport", "VMBus", "VSC", system,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "ParavisorTests",
      dependencies: [
        "Paravisor", "Platform", "SimulatedBus", "SimulatedHost", "StorageVSC", "VMBus", "VSC",
        system,
      ],
      swiftSettings: settings),
    .testTarget(name: "VMBusTests", dependencies: ["VMBus"], swiftSettings: settings),
    .testTarget(
      name: "VMBusLinuxTests",
      dependencies: [
        "CBPF", "LinuxDevices", "LinuxTestSupport", "Platform", "TestSupport", "VMBus",
        "VMBusLinux",
      ],
      exclude: ["Fixtures"], swiftSettings: settings),
    .testTarget(
      name: "VMBusUIOTests",
      dependencies: [
        "LinuxDevices", "LinuxTestSupport", "Platform", "TestSupport", "VMBus", "VMBusLinux",
        "VMBusUIO", "VSC", system,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "VMBusKernelTests",
      dependencies: [
        "CUserVSC", "LinuxDevices", "LinuxTestSupport", "Platform", "TestSupport", "VMBus",
        "VMBusKernel", "VMBusLinux", "VSC",
      ],
      swiftSettings: settings),
    .testTarget(
      name: "VFIOPCITests",
      dependencies: ["LinuxDevices", "PCIFunction", "Platform", "TestSupport", "VFIOPCI", "VSC"],
      swiftSettings: settings),
    .testTarget(
      name: "DeviceBindingTests",
      dependencies: [
        "DeviceBinding", "LinuxDevices", "PCIFunction", "Platform", "TestSupport", "VFIOPCI",
        "VMBus", "VMBusLinux", system,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "VSCTests", dependencies: ["TestSupport", "VMBus", "VSC"], swiftSettings: settings),
    .testTarget(
      name: "StorageVSCTests",
      dependencies: ["Platform", "StorageProtocol", "StorageVSC", "TestSupport", "VMBus", "VSC"],
      swiftSettings: settings),
    .testTarget(
      name: "NVMeProtocolTests", dependencies: ["NVMeProtocol", "VMBus"], swiftSettings: settings),
    .testTarget(
      name: "NVMeTests",
      dependencies: [
        "BlockStorage", "NVMe", "NVMeProtocol", "PCIFunction", "Platform", "SimulatedHost",
        "SimulatedNVMe", "SimulatedPCI", "TestSupport", "VMBus", "VSC", system,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "StorageProtocolTests", dependencies: ["StorageProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(
      name: "BalloonProtocolTests", dependencies: ["BalloonProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(
      name: "IntegrationProtocolTests", dependencies: ["IntegrationProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(
      name: "NetworkVSCTests",
      dependencies: [
        "NetworkProtocol", "NetworkVSC", "Platform", "TestSupport", "VMBus", "VSC",
      ],
      swiftSettings: settings),
    .testTarget(
      name: "NetworkProtocolTests", dependencies: ["NetworkProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(
      name: "BalloonVSCTests",
      dependencies: ["BalloonProtocol", "BalloonVSC", "CLinux", "Platform", "VMBus", "VSC"],
      swiftSettings: settings),
    .testTarget(
      name: "SimulatedHostTests",
      dependencies: [
        "BalloonProtocol", "CLinux", "IntegrationProtocol", "NetworkProtocol", "PacketIO",
        "Platform", "SimulatedHost", "SimulatedLink", "StorageProtocol", "TestSupport", "VMBus",
        logging, system,
      ],
      swiftSettings: settings),
  ] + pluginTargets + machineTargets,
  swiftLanguageModes: [.v6]
)
