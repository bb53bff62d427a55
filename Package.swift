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
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.5.0"),
  ],
  targets: [
    .systemLibrary(name: "CLinux", path: "CShims/CLinux"),
    .target(name: "VMBus", swiftSettings: settings),
    .target(
      name: "Platform",
      dependencies: ["CLinux", .product(name: "SystemPackage", package: "swift-system")],
      swiftSettings: settings),
    .target(name: "VSC", dependencies: ["Platform", "VMBus"], swiftSettings: settings),
    .testTarget(name: "PlatformTests", dependencies: ["Platform"], swiftSettings: settings),
    .target(
      name: "StorageVSC", dependencies: ["Platform", "StorageProtocol", "VMBus", "VSC"],
      swiftSettings: settings),
    .target(name: "StorageProtocol", dependencies: ["VMBus"], swiftSettings: settings),
    .testTarget(name: "VMBusTests", dependencies: ["VMBus"], swiftSettings: settings),
    .testTarget(
      name: "StorageProtocolTests", dependencies: ["StorageProtocol", "VMBus"],
      swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)
