// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import VMBus

extension Doctor {
  static let rulesFile = "60-swift-vmbus.rules"
  static let group = "vmbus"
  static let units = [
    "vmbus-bind@.service", "vsc-storage@.service", "vsc-network@.service", "vsc-nvme@.service",
    "vsc-balloon@.service",
  ]
  private static let install = "scripts/install, or install the package"

  /// The directories of rules, the first one wins.
  private static let ruleDirectories = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].map {
    "\($0)/udev/rules.d"
  }

  // MARK: - udev

  var udev: [Finding] {
    var found: [Finding] = []
    found.append(
      exists("/run/udev/control")
        ? Finding("udevd", .ok, "running")
        : Finding(
          "udevd", .warning, "not running: nobody makes links, sets groups and starts drivers",
          remedy: "systemctl start systemd-udevd"))
    found.append(rules)
    found += contradictions
    found.append(groupFinding)
    return found
  }

  private var rules: Finding {
    let files = distinct(Self.ruleDirectories.map { "\($0)/\(Self.rulesFile)" }.filter(exists))
    guard let first = files.first else {
      return Finding(
        "udev rules", .warning, "\(Self.rulesFile) is not installed: devices are bound by hand",
        remedy: Self.install)
    }
    guard let text = text(paths.root, first) else {
      return Finding(
        "udev rules", .fault, "\(first) can't be read", remedy: "chmod 644 \(first)")
    }
    if text.split(separator: "\n").allSatisfy({ $0.hasPrefix("#") }) {
      return Finding(
        "udev rules", .warning, "\(first) has no rule", remedy: "rm \(first), or write one there")
    }
    guard files.count == 1 else {
      return Finding(
        "udev rules", .warning,
        "\(first) is used, and \(files.dropFirst().joined(separator: ", ")) is not",
        remedy: "rm \(first), unless it was made to be used instead")
    }
    return Finding("udev rules", .ok, first)
  }

  /// `/lib` may be a link to `/usr/lib`: the same file is one.
  private func distinct(_ files: [String]) -> [String] {
    let isJoined = ((try? SysfsDirectory("\(paths.root)/").linkTarget("lib")) ?? nil) != nil
    return isJoined ? files.filter { !$0.hasPrefix("/lib/") } : files
  }

  /// Rules that want one device for several drivers: the last one wins, whichever was meant.
  private var contradictions: [Finding] {
    var wanted: [GUID: [String: String]] = [:]
    var seen: Set<String> = []
    for directory in Self.ruleDirectories {
      let names = (try? SysfsDirectory(paths.root + directory).names(in: ".")) ?? []
      // A file hides those of its name in later directories.
      for name in names where name.hasSuffix(".rules") && seen.insert(name).inserted {
        let text = text(paths.root + directory, name) ?? ""
        for rule in UdevRule.rules(in: text) {
          guard let device = rule.instance, let driver = rule.driver else { continue }
          wanted[device, default: [:]][driver] = "\(directory)/\(name)"
        }
      }
    }
    return wanted.filter { $0.value.count > 1 }.sorted { "\($0.key)" < "\($1.key)" }.map {
      device, drivers in
      let list = drivers.sorted { $0.key < $1.key }.map { "\($0.key) (\($0.value))" }
      return Finding(
        "udev rules", .fault, "rules want \(device) for \(list.joined(separator: " and for "))",
        remedy: "leave one of them, then udevadm control --reload")
    }
  }

  private var groupFinding: Finding {
    let groups = text("\(paths.root)/etc", "group") ?? ""
    guard let line = groups.split(separator: "\n").first(where: { $0.hasPrefix("\(Self.group):") })
    else {
      let isWanted = Self.ruleDirectories.contains { exists("\($0)/\(Self.rulesFile)") }
      return Finding(
        "group \(Self.group)", isWanted ? .fault : .warning,
        isWanted
          ? "there is none, and the rules give nodes to it"
          : "there is none: nodes are root's alone",
        remedy: "groupadd --system \(Self.group)")
    }
    let id = line.split(separator: ":", omittingEmptySubsequences: false).dropFirst(2).first ?? ""
    let mine = processStatus("Groups") + processStatus("Gid")
    guard isRoot || mine.contains(id) else {
      return Finding(
        "group \(Self.group)", .warning, "this user is not in it",
        remedy: "usermod -aG \(Self.group) USER, then log in anew")
    }
    return Finding("group \(Self.group)", .ok, isRoot ? "there" : "there, and this user is in it")
  }

  // MARK: - systemd

  var systemd: [Finding] {
    guard exists("/run/systemd/system") else {
      return [
        Finding(
          "systemd", .warning, "not running: something else has to start drivers",
          remedy: "vsc-storage --help")
      ]
    }
    let directories = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].map {
      "\($0)/systemd/system"
    }
    return Self.units.map { unit in
      guard let path = directories.map({ "\($0)/\(unit)" }).first(where: exists) else {
        return Finding("unit \(unit)", .warning, "not installed", remedy: Self.install)
      }
      let directory = String(path.dropLast(unit.count + 1))
      if ((try? SysfsDirectory(paths.root + directory).linkTarget(unit)) ?? nil) == "/dev/null" {
        return Finding(
          "unit \(unit)", .fault, "masked: drivers are not started",
          remedy: "systemctl unmask \(unit)")
      }
      return Finding("unit \(unit)", .ok, path)
    }
  }
}

/// What matters of a rule.
struct UdevRule: Equatable {
  var instance: GUID?
  /// Which driver alone may have the device.
  var driver: String?

  /// The rules of a file. A line that ends with a backslash goes on in the next one.
  static func rules(in text: String) -> [UdevRule] {
    let joined = text.replacing("\\\n", with: " ")
    return joined.split(separator: "\n").compactMap { line in
      guard !line.drop(while: { $0 == " " || $0 == "\t" }).hasPrefix("#") else { return nil }
      var rule = UdevRule()
      for part in line.split(separator: ",") {
        if let value = value(part, "KERNEL", "==") { rule.instance = GUID(value) }
        for key in ["ATTR{driver_override}", "ENV{VMBUS_DRIVER}"] {
          if let value = value(part, key, "=") { rule.driver = value }
        }
      }
      return rule
    }
  }

  private static func value(_ part: Substring, _ key: String, _ operation: String) -> String? {
    let text = part.drop { $0 == " " || $0 == "\t" }
    let beginning = "\(key)\(operation)\""
    guard text.hasPrefix(beginning) else { return nil }
    return String(text.dropFirst(beginning.count).prefix { $0 != "\"" })
  }
}
