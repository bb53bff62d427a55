// SPDX-License-Identifier: Apache-2.0

/// How things are after a device has changed hands, or has not needed to.
public struct BindingOutcome: Sendable, Equatable {
  /// Its instance GUID, or its PCI address.
  public var device: String
  /// The driver that has it, if one has.
  public var driver: String?
  /// The one that had it before.
  public var previousDriver: String?
  /// What a program opens, where the driver gives the device to user space.
  public var node: String?
  /// False when there was nothing to do.
  public var isChanged: Bool
  /// What was done all the same, because somebody insisted.
  public var warnings: [String]

  public init(
    device: String, driver: String?, previousDriver: String?, node: String? = nil,
    isChanged: Bool, warnings: [String] = []
  ) {
    self.device = device
    self.driver = driver
    self.previousDriver = previousDriver
    self.node = node
    self.isChanged = isChanged
    self.warnings = warnings
  }
}

/// The kernel's drivers that give VMBus devices to user space.
public enum BindableDriver: String, Sendable, CaseIterable {
  /// The one that every kernel has.
  case uio = "uio_hv_generic"
  /// The companion module.
  case module = "hv_uservsc"
}
