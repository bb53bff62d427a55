// SPDX-License-Identifier: Apache-2.0

package import LinuxDevices
public import TestSupport

extension SysfsTree {
  package var directory: SysfsDirectory { SysfsDirectory(path) }

  public static let scsi = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
  public static let instance = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"

  /// A SCSI controller with a subchannel, bound to `uio_hv_generic`.
  public static func controller() throws -> SysfsTree {
    let tree = try SysfsTree()
    try tree.write([
      "device_id": "{\(instance)}", "class_id": "{\(scsi)}", "id": "9", "state": "2",
      "driver_override": "uio_hv_generic", "channels/9/subchannel_id": "0",
      "channels/31/subchannel_id": "1", "channels/31/monitor_id": "12",
    ])
    try tree.makeEmptyFile("channels/9/ring", byteCount: 4 << 20)
    try tree.link("driver", to: "../../../bus/vmbus/drivers/uio_hv_generic")
    return tree
  }
}
