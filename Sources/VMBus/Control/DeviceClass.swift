// SPDX-License-Identifier: Apache-2.0

/// What kind of device an offer is: its interface GUID. Unknown ones are kept as they are.
public struct DeviceClass: Hashable, Sendable {
  public var guid: GUID

  public init(_ guid: GUID) { self.guid = guid }

  public static let ide = DeviceClass("32412632-86cb-44a2-9b5c-50d1417354f5")
  public static let scsi = DeviceClass("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f")
  public static let fibreChannel = DeviceClass("2f9bcc4a-0069-4af3-b76b-6fd0be528cda")
  public static let network = DeviceClass("f8615163-df3e-46c5-913f-f2d2f965ed0e")
  /// RDMA.
  public static let networkDirect = DeviceClass("8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501")
  /// A PCI function passed through.
  public static let vpci = DeviceClass("44c4f61d-4444-4400-9d52-802e27ede19f")
  public static let framebuffer = DeviceClass("da0a7802-e377-4aac-8e77-0558eb1073f8")
  public static let keyboard = DeviceClass("f912ad6d-2b17-48ea-bd65-f927a61c7684")
  public static let mouse = DeviceClass("cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a")
  public static let kvp = DeviceClass("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6")
  public static let timesync = DeviceClass("9527e630-d0ae-497b-adce-e80ab0175caf")
  public static let heartbeat = DeviceClass("57164f39-9115-4e78-ab55-382f3bd5422d")
  public static let shutdown = DeviceClass("0e0b6031-5213-4934-818b-38d90ced39db")
  public static let fileCopy = DeviceClass("34d14be3-dee4-41c8-9ae7-6b174977c192")
  /// Volume snapshots.
  public static let backup = DeviceClass("35fa2e29-ea23-4236-96ae-3a6ebacba440")
  /// Dynamic memory.
  public static let balloon = DeviceClass("525074dc-8985-46e2-8057-a307dc18a502")
  /// Activation of a virtual machine (two of them), and two more that Linux leaves alone.
  public static let activation1 = DeviceClass("f8e65716-3cb3-4a06-9a60-1889c5cccab5")
  public static let activation2 = DeviceClass("3375baf4-9e15-4b30-b765-67acb10d607b")
  public static let remoteDesktop = DeviceClass("276aacf4-ac15-426c-98dd-7521ad3f01fe")
  public static let instanceManagement = DeviceClass("c376c1c3-d276-48d2-90a9-c04748072c60")

  /// Every class with a name, for `vmbusctl` and for looking up.
  public static let known: [(name: String, deviceClass: DeviceClass)] = [
    ("ide", .ide), ("scsi", .scsi), ("fibre-channel", .fibreChannel), ("network", .network),
    ("network-direct", .networkDirect), ("vpci", .vpci), ("framebuffer", .framebuffer),
    ("keyboard", .keyboard), ("mouse", .mouse), ("kvp", .kvp), ("timesync", .timesync),
    ("heartbeat", .heartbeat), ("shutdown", .shutdown), ("file-copy", .fileCopy),
    ("backup", .backup), ("balloon", .balloon), ("activation-1", .activation1),
    ("activation-2", .activation2), ("remote-desktop", .remoteDesktop),
    ("instance-management", .instanceManagement),
  ]

  /// The name of a known class.
  public var name: String? {
    Self.known.first { $0.deviceClass == self }?.name
  }

  /// The class of that name, or of that GUID in text.
  public init?(named text: some StringProtocol) {
    if let found = Self.known.first(where: { $0.name == text }) {
      self = found.deviceClass
    } else if let guid = GUID(text) {
      self.init(guid)
    } else {
      return nil
    }
  }
}

extension DeviceClass: CustomStringConvertible {
  public var description: String { name ?? guid.description }
}
