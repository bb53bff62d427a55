// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ProgramSupport
import SystemPackage
import VirtualMachine

/// A small system that runs one command: busybox, the modules of an installed kernel, and what the
/// user adds.
struct GuestSystem {
  struct Options: ParsableArguments {
    @Option(
      help: ArgumentHelp(
        "With a command: where the kernel's modules are; by default /lib/modules/VERSION.",
        valueName: "directory"))
    var modules: String?

    @Option(
      help: ArgumentHelp(
        "With a command: a busybox that is linked statically (Debian: busybox-static).",
        valueName: "file"))
    var busybox = "/bin/busybox"

    @Option(
      help: ArgumentHelp(
        "With a command: a further module of the kernel, by its name.", valueName: "name"))
    var module: [String] = []

    @Option(
      help: ArgumentHelp(
        "With a command: a file for the guest, at the same path there or at another one.",
        valueName: "file[:path]"))
    var add: [String] = []

    @Argument(
      help: ArgumentHelp(
        "A command to run in the guest: a small system with busybox is made for it. What it prints is printed, and its status is this program's.",
        valueName: "command"))
    var command: [String] = []
  }

  static let usualModules = [
    "hv_vmbus", "hv_storvsc", "sd_mod", "crc32c_generic", "ext4", "hv_utils", "hv_netvsc",
  ]

  let archive: [UInt8]
  let token: String

  /// - Parameters:
  ///   - directory: where the kernel's modules are.
  ///   - disks: the system waits for so many.
  ///   - nics: and for so many network interfaces.
  ///   - isInteractive: whether the command reads what somebody types; otherwise it reads nothing,
  ///     since a console has no end.
  init(
    _ options: Options, modules directory: String, disks: Int, nics: Int,
    isInteractive: Bool
  ) throws {
    token = "guest-\(UInt64.random(in: 0 ... .max))"
    var archive = FileArchive()
    archive.addConsole()
    for directory in ["bin", "proc", "sys", "tmp", "mnt", "modules"] {
      archive.addDirectory(directory)
    }
    let busybox = try readInput(options.busybox)
    // A program that names an interpreter needs it, and libraries.
    guard busybox.prefix(4) == [0x7F, 0x45, 0x4C, 0x46], !Self.namesInterpreter(busybox) else {
      throw ProgramFailure(
        .data,
        "\(options.busybox) is not linked statically: install busybox-static, or name another")
    }
    archive.addFile("bin/busybox", busybox)
    let text = try readInput(directory + "/modules.dep")
    let dependencies = ModuleDependencies(parsing: String(decoding: text, as: UTF8.self))
    var order = ""
    for path in dependencies.loadOrder(Self.usualModules + options.module) {
      guard !path.hasSuffix(".zst") else {
        throw ProgramFailure(.data, "\(path): modules packed with zstd are not supported")
      }
      archive.addFile("modules/\(path)", try readInput("\(directory)/\(path)"))
      order += "/modules/\(path)\n"
    }
    archive.addFile("modules/order", Array(order.utf8))
    for addition in options.add {
      let parts = addition.split(separator: ":", maxSplits: 1).map(String.init)
      guard let file = parts.first else { continue }
      archive.addFile(parts.last ?? file, try readInput(file))
    }
    archive.addFile(
      "command", Array((options.command.map(Self.quoted).joined(separator: " ") + "\n").utf8))
    archive.addFile(
      "init",
      Array(
        Self.firstProcess(
          token: token, disks: disks, nics: nics,
          input: isInteractive ? "/dev/ttyS0" : "/dev/null"
        ).utf8))
    self.archive = archive.bytes
  }

  /// For a shell, whatever is in it.
  static func quoted(_ word: String) -> String {
    "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
      + "'"
  }

  /// Whether an ELF file for 64 bits has a program header of type 3 (PT_INTERP).
  static func namesInterpreter(_ file: [UInt8]) -> Bool {
    func integer(_ offset: Int, _ count: Int) -> Int? {
      guard offset >= 0, offset <= file.count - count else { return nil }
      return file[offset..<offset + count].reversed().reduce(0) {
        ($0 << 8 | Int($1)) & 0xFFFF_FFFF
      }
    }
    guard let start = integer(32, 4), let size = integer(54, 2), let count = integer(56, 2) else {
      return true
    }
    return (0..<count).contains { integer(start + $0 * size, 4) == 3 }
  }

  private static func firstProcess(
    token: String, disks: Int, nics: Int, input: String
  ) -> String {
    """
    #!/bin/busybox sh
    /bin/busybox --install -s /bin
    export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    while read -r module; do
      case $module in
        *.xz) xz -dc "$module" >/tmp/module ;;
        *.gz) gzip -dc "$module" >/tmp/module ;;
        *) cp "$module" /tmp/module ;;
      esac
      insmod /tmp/module || echo "$module could not be loaded"
    done </modules/order
    rm -rf /modules /tmp/module
    rounds=0
    until [ "$(ls /sys/block | grep -c ^sd)" -ge \(disks) ] &&
      [ "$(ls -d /sys/bus/vmbus/devices/*/net/* 2>/dev/null | wc -l)" -ge \(nics) ] ||
      [ $rounds -ge 100 ]; do
      sleep 0.1
      rounds=$((rounds + 1))
    done
    stty -F /dev/ttyS0 raw -echo
    printf '\\001\(token)\\n' >/dev/ttyS0
    setsid -c sh /command <\(input) >/dev/ttyS0 2>&1
    status=$?
    sync
    printf '\\001\(token) %d\\n' "$status" >/dev/ttyS0
    sleep 0.1
    poweroff -f

    """
  }
}
