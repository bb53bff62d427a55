// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import Testing

/// The structures lie as the module was built with them: sizes and offsets by hand, from their fields.
@Suite struct ModuleInterfaceTests {
  @Test func sizes() {
    #expect(MemoryLayout<hv_uservsc_info>.size == 240)
    #expect(MemoryLayout<hv_uservsc_channel>.size == 48)
    #expect(MemoryLayout<hv_uservsc_open>.size == 168)
    #expect(MemoryLayout<hv_uservsc_close>.size == 16)
    #expect(MemoryLayout<hv_uservsc_eventfd>.size == 16)
    #expect(MemoryLayout<hv_uservsc_dma>.size == 48)
    #expect(MemoryLayout<hv_uservsc_dma_free>.size == 16)
  }

  @Test func infoOffsets() {
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.version) == 8)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.isolated) == 20)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.external_visibility) == 24)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.class_id) == 32)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.instance_id) == 48)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.offer_flags) == 64)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.ring_bytes_max) == 72)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.leaked_pages) == 112)
    #expect(MemoryLayout<hv_uservsc_info>.offset(of: \.offer_user) == 120)
  }

  @Test func channelOffsets() {
    #expect(MemoryLayout<hv_uservsc_channel>.offset(of: \.channel) == 8)
    #expect(MemoryLayout<hv_uservsc_channel>.offset(of: \.relid) == 16)
    #expect(MemoryLayout<hv_uservsc_channel>.offset(of: \.ring_visibility) == 36)
  }

  @Test func openOffsets() {
    #expect(MemoryLayout<hv_uservsc_open>.offset(of: \.tx_bytes) == 12)
    #expect(MemoryLayout<hv_uservsc_open>.offset(of: \.eventfd) == 20)
    #expect(MemoryLayout<hv_uservsc_open>.offset(of: \.offset) == 32)
    #expect(MemoryLayout<hv_uservsc_open>.offset(of: \.user_data) == 48)
  }

  @Test func memoryOffsets() {
    #expect(MemoryLayout<hv_uservsc_dma>.offset(of: \.bytes) == 8)
    #expect(MemoryLayout<hv_uservsc_dma>.offset(of: \.pages) == 16)
    #expect(MemoryLayout<hv_uservsc_dma>.offset(of: \.page_count) == 24)
    #expect(MemoryLayout<hv_uservsc_dma>.offset(of: \.offset) == 32)
    #expect(MemoryLayout<hv_uservsc_dma>.offset(of: \.gpadl) == 40)
  }
}
