// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import Testing
import VMBus

@testable import VMBusKernel

@Suite struct ModuleFactsTests {
  /// A disk controller's answers in a machine without isolation.
  static func info(_ change: (inout hv_uservsc_info) -> Void = { _ in }) -> hv_uservsc_info {
    var info = hv_uservsc_info()
    info.version = 1
    info.features = 1
    info.vmbus_version = 0x6_0000
    info.external_visibility = 1
    // ba6163d9-04a1-4d29-b605-72e2ffb1dc7f, as the wire has it.
    info.class_id = (
      0xD9, 0x63, 0x61, 0xBA, 0xA1, 0x04, 0x29, 0x4D, 0xB6, 0x05, 0x72, 0xE2, 0xFF, 0xB1, 0xDC, 0x7F
    )
    info.ring_bytes_max = 1 << 25
    info.region_bytes_max = .max
    change(&info)
    return info
  }

  static let primary = ModuleChannel(channel: 9, ring: 1)

  @Test func areRead() throws {
    let facts = try ModuleFacts(Self.info(), Self.primary)
    #expect(facts.deviceClass == .scsi)
    #expect(facts.channel == 9)
    #expect(facts.busVersion >> 16 == 6)
    #expect(facts.knowsConfidentialChannels && !facts.isIsolated)
    #expect(facts.ringLimit == 1 << 25)
    // What does not fit is no less of a limit.
    #expect(facts.regionLimit == .max)
    #expect(try facts.confidentiality() == .hostVisible)
  }

  @Test(arguments: [0, 2, .max] as [UInt32]) func anotherVersionIsRefused(_ version: UInt32) {
    #expect(throws: ModuleFactsError.version(version)) {
      _ = try ModuleFacts(Self.info { $0.version = version }, Self.primary)
    }
  }

  @Test(arguments: [0, 4, .max] as [UInt32]) func memoryOfNoKind(_ kind: UInt32) {
    #expect(throws: ModuleFactsError.visibility(kind)) {
      _ = try ModuleFacts(Self.info { $0.external_visibility = kind }, Self.primary)
    }
    #expect(throws: ModuleFactsError.visibility(kind)) {
      _ = try ModuleFacts(Self.info(), ModuleChannel(channel: 9, ring: kind))
    }
  }

  /// Ring, external memory, and what a channel with them is; nothing for a pair that none may have.
  @Test(
    arguments: [
      (1, 1, .hostVisible), (2, 2, .hostVisible), (3, 2, .ring), (3, 3, .ringAndExternalMemory),
      // External memory is never better hidden than the ring, and a machine is isolated or not.
      (2, 3, nil), (1, 2, nil), (2, 1, nil), (1, 3, nil), (3, 1, nil),
    ] as [(UInt32, UInt32, Confidentiality?)])
  func lawfulPairs(_ ring: UInt32, _ external: UInt32, _ expected: Confidentiality?) throws {
    let (ring, external) = (
      try #require(ModuleVisibility(rawValue: ring)),
      try #require(ModuleVisibility(rawValue: external))
    )
    if let expected {
      #expect(try ModuleFacts.confidentiality(ring: ring, external: external) == expected)
    } else {
      #expect(throws: ModuleFactsError.unlawful(ring: ring, external: external)) {
        _ = try ModuleFacts.confidentiality(ring: ring, external: external)
      }
    }
  }
}
