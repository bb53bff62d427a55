// SPDX-License-Identifier: Apache-2.0

/// Where things lie in the machine's physical memory, and which ports it has.
enum MachineLayout {
  static let descriptorTable: UInt64 = 0x8000
  /// Six pages: they map the lowest 4 GiB to themselves.
  static let pageTables: UInt64 = 0x9000
  static let bootParameters: UInt64 = 0x10000
  static let commandLine: UInt64 = 0x20000
  /// Memory below it; what lies from here to 1 MiB belongs to the firmware.
  static let lowMemoryEnd: UInt64 = 0x9_FC00
  static let firmware: UInt64 = 0xE_0000
  static let firmwareEnd: UInt64 = 0x10_0000
  static let highMemory: UInt64 = 0x10_0000

  /// Behind it devices and interrupt controllers have their addresses, up to 4 GiB.
  static let deviceHole: UInt64 = 3 << 30
  static let deviceHoleEnd: UInt64 = 4 << 30
  static let interruptController: UInt64 = 0xFEC0_0000
  static let localInterruptController: UInt64 = 0xFEE0_0000
  /// Intel's processors keep task states here.
  static let taskState: UInt64 = 0xFFFB_D000

  /// In an isolated machine: the address bit of host-visible memory (vTOM). Processors of any kind have
  /// so many address bits, and no machine has memory up there.
  static let boundaryBit: UInt8 = 38
  static let boundary: UInt64 = 1 << UInt64(boundaryBit)
  /// Where an isolated machine's host has SynIC pages of its own; behind them lie the GHCBs. A guest finds
  /// them through its GHCB, with the boundary bit, and others do not know of them.
  static let hostSynICs: UInt64 = 1 << 37

  static let codeSelector: UInt16 = 0x10
  static let dataSelector: UInt16 = 0x18

  static let serialPorts: ClosedRange<UInt16> = 0x3F8...0x3FF
  static let serialLine: UInt32 = 4
  static let clockRegister: UInt16 = 0x70
  static let clockValue: UInt16 = 0x71
  static let keyboardCommand: UInt16 = 0x64
  static let resetControl: UInt16 = 0xCF9
  /// ACPI's fixed registers: status and enable, then control.
  static let powerEvents: UInt16 = 0x600
  static let powerControl: UInt16 = 0x604
  static let powerLine: UInt8 = 9
  /// In an isolated machine: where the hypercall page leads to its monitor.
  static let visibilityPort: UInt16 = 0xE9
  /// In an SNP machine, in place of what KVM can't do there: an exit to the hypervisor.
  static let exitPort: UInt16 = 0xEA

  static let maximumProcessors = 16
  /// The IOAPIC has 24 pins; behind them each processor's SINT has a number.
  static let pins: UInt32 = 24
  static func interrupt(ofProcessor number: Int) -> UInt32 { pins + UInt32(number) }
}
