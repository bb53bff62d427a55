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
  name: "swift-vmbus",
  products: [
    .library(name: "VMBus", targets: ["VMBus"])
  ],
  targets: [
    .systemLibrary(name: "CLinux", path: "CShims/CLinux"),
    .target(name: "VMBus", swiftSettings: settings),
    .target(name: "StorageProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .target(
      name: "SimulatedHost", dependencies: ["CLinux", "StorageProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(name: "VMBusTests", dependencies: ["VMBus"], swiftSettings: settings),
    .testTarget(
      name: "StorageProtocolTests", dependencies: ["StorageProtocol", "VMBus"],
      swiftSettings: settings),
    .testTarget(
      name: "SimulatedHostTests", dependencies: ["SimulatedHost", "StorageProtocol", "VMBus"],
      swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)
