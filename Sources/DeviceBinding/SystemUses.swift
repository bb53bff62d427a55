// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus

/// What the system uses of a device, for people: "sda1 (mounted at /)", "eth0 (the default route)". A device
/// with any is not taken away unasked.
struct SystemUses {
  let all: [String]

  /// - Parameters:
  ///   - device: the device's own directory.
  ///   - connection: what `SSH_CONNECTION` says, where it is set.
  init(
    of device: SysfsDirectory, _ paths: SystemPaths, connection: String?
  ) throws(DiscoveryError) {
    var uses = try DisksInUse(below: device, paths).uses
    let interfaces = try device.names(in: "net")
    if !interfaces.isEmpty {
      let network = SysfsDirectory("\(paths.processes)/self/net")
      let routes = try Routes(network)
      let logins = try RemoteLogins(network, connection: connection)
      for name in interfaces {
        uses += try Self.uses(of: name, device.directory("net/\(name)"), routes, logins)
      }
    }
    all = uses
  }

  /// What is above an interface (a bridge, a bond) uses it; and what is below the synthetic one is the
  /// virtual function that its traffic may go by.
  private static func uses(
    of name: String, _ directory: SysfsDirectory, _ routes: Routes, _ logins: RemoteLogins
  ) throws(DiscoveryError) -> [String] {
    var uses: [String] = []
    var above: [String] = []
    for entry in try directory.names(in: ".") {
      if entry.hasPrefix("lower_") {
        uses.append("\(name) (its virtual function \(entry.dropFirst(6)) is attached)")
      } else if entry.hasPrefix("upper_") {
        above.append(String(entry.dropFirst(6)))
        uses.append("\(name) (part of \(entry.dropFirst(6)))")
      }
    }
    let names = [name] + above
    if names.contains(where: routes.defaults.contains) {
      uses.append("\(name) (the default route)")
    }
    for peer in logins.peers {
      guard let carrier = routes.interface(to: peer), names.contains(carrier) else { continue }
      uses.append("\(name) (carries SSH from \(RemoteLogins.text(peer)))")
    }
    return uses
  }
}
