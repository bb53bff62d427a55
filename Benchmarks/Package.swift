// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let settings: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableExperimentalFeature("Lifetimes"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "benchmarks",
  dependencies: [.package(name: "swift-vmbus", path: "..")],
  targets: [
    // The ring once more, in C: what the Swift ring is measured against.
    .target(
      name: "RingTwin",
      cSettings: [.unsafeFlags(["-O3", "-Wall", "-Wextra", "-Werror"])]),
    .executableTarget(
      name: "ring-bench",
      dependencies: ["RingTwin", .product(name: "VMBus", package: "swift-vmbus")],
      swiftSettings: settings),
    .executableTarget(
      name: "idle-channels",
      dependencies: [
        .product(name: "SimulatedBus", package: "swift-vmbus"),
        .product(name: "SimulatedHost", package: "swift-vmbus"),
        .product(name: "VSC", package: "swift-vmbus"),
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "datapath",
      dependencies: [
        .product(name: "NetworkProtocol", package: "swift-vmbus"),
        .product(name: "NetworkVSC", package: "swift-vmbus"),
        .product(name: "BlockStorage", package: "swift-vmbus"),
        .product(name: "NVMe", package: "swift-vmbus"),
        .product(name: "NVMeProtocol", package: "swift-vmbus"),
        .product(name: "PCIFunction", package: "swift-vmbus"),
        .product(name: "StorageVSC", package: "swift-vmbus"),
        .product(name: "VMBus", package: "swift-vmbus"),
        .product(name: "VSC", package: "swift-vmbus"),
      ],
      swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)
