// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import TestSupport
import Testing

@testable import DeviceBinding

/// The network of a machine whose only synthetic interface is eth0.
@Suite struct SystemUsesTests {
  private let kernel: FakeVMBus

  init() throws {
    kernel = try FakeVMBus(FakeVMBus.network, driver: "hv_netvsc")
    try kernel.tree.makeDirectory("\(FakeVMBus.device)/net/eth0")
  }

  private func uses(connection: String? = nil) throws -> [String] {
    try SystemUses(
      of: SysfsDirectory("\(kernel.tree.path)/\(FakeVMBus.device)"), kernel.paths,
      connection: connection
    ).all
  }

  private func write(_ name: String, _ text: String) throws {
    try kernel.tree.write(["proc/self/net/\(name)": text])
  }

  private static let header =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
  /// 10.0.0.0/24 through eth0.
  private static let near = "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
  /// Everywhere by 10.0.0.1, through eth0.
  private static let far = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0"

  @Test func anInterfaceThatNobodyUsesIsFree() throws {
    try write("route", [Self.header, Self.near].joined(separator: "\n"))
    #expect(try uses().isEmpty)
  }

  @Test func theDefaultRouteKeepsIt() throws {
    try write("route", [Self.header, Self.far, Self.near].joined(separator: "\n"))
    #expect(try uses() == ["eth0 (the default route)"])
  }

  @Test func theDefaultRouteOfTheNewVersionKeepsItToo() throws {
    let zeros = String(repeating: "0", count: 32)
    // The kernel's own answer to what has no route is not one.
    try write(
      "ipv6_route",
      "\(zeros) 00 \(zeros) 00 \(zeros) ffffffff 00000001 00000000 00200200       lo\n"
        + "\(zeros) 00 \(zeros) 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0"
    )
    #expect(try uses() == ["eth0 (the default route)"])
  }

  @Test func aRouteThatIsDownDoesNot() throws {
    try write("route", Self.header + "\neth0\t00000000\t0100000A\t0002\t0\t0\t0\t00000000\t0\t0\t0")
    #expect(try uses().isEmpty)
  }

  @Test func whatCarriesALoginStays() throws {
    try write("route", [Self.header, Self.near].joined(separator: "\n"))
    // 10.0.0.5:22 with 10.0.0.7; a login from here; one that listens; another service's.
    try write(
      "tcp",
      """
        sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
         0: 0500000A:0016 0700000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 1
         1: 0100007F:0016 0100007F:C351 01 00000000:00000000 00:00000000 00000000     0        0 2
         2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3
         3: 0500000A:01BB 0900000A:C352 01 00000000:00000000 00:00000000 00000000     0        0 4
      """)
    #expect(try uses() == ["eth0 (carries SSH from 10.0.0.7)"])
  }

  @Test func aSocketOfTheNewVersionHasOldAddresses() throws {
    try write("route", [Self.header, Self.near].joined(separator: "\n"))
    let line =
      "   0: 0000000000000000FFFF00000500000A:08AE 0000000000000000FFFF00000700000A:C350 01 0:0 0:0 0 0 0 1"
    try write("tcp6", line)
    #expect(try uses().isEmpty)
    // sshd of this session listens at another port.
    #expect(
      try uses(connection: "10.0.0.7 50000 10.0.0.5 2222") == ["eth0 (carries SSH from 10.0.0.7)"])
  }

  @Test func aVirtualFunctionAndABridgeKeepIt() throws {
    try kernel.tree.makeDirectory("\(FakeVMBus.device)/net/eth0/lower_enP1s1")
    try kernel.tree.makeDirectory("\(FakeVMBus.device)/net/eth0/upper_br0")
    // The route is the bridge's.
    try write(
      "route", Self.header + "\nbr0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0")
    #expect(
      try uses() == [
        "eth0 (its virtual function enP1s1 is attached)", "eth0 (part of br0)",
        "eth0 (the default route)",
      ])
  }

  @Test(arguments: [
    "", "eth0", "eth0\tzz\tzz\tzz\t0\t0\t0\tzz", "\t\t\t\t\t\t\t\t", "eth0 1 2 3 4 5 6 7 8 9",
  ])
  func brokenLinesAreNoRoutes(line: String) throws {
    for name in ["route", "ipv6_route", "tcp", "tcp6"] { try write(name, line) }
    #expect(try uses().isEmpty)
  }
}
