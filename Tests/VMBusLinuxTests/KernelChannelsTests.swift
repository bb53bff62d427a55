// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@testable import VMBusLinux

@Suite struct KernelChannelsTests {
  @Test(.enabled(if: FakeKernel.isPossible), arguments: [FakeKernel.Fields.bytes, .bits])
  func channelsAreListedWithTheirFlags(_ fields: FakeKernel.Fields) throws {
    let kernel = try FakeKernel(fields)
    let read = try KernelChannels.read(connection: kernel.connection, types: kernel.types)
    #expect(
      read.channels == [
        KernelChannel(channel: ChannelID(1), subchannelIndex: 0, flags: []),
        KernelChannel(
          channel: ChannelID(7), subchannelIndex: 0, flags: .confidentialRingBuffer),
        KernelChannel(
          channel: ChannelID(2047), subchannelIndex: 3,
          flags: [.confidentialRingBuffer, .confidentialExternalMemory]),
      ])
  }

  @Test(.enabled(if: FakeKernel.isPossible)) func aKernelWithoutTheFields() throws {
    let kernel = try FakeKernel(.none)
    #expect(throws: KernelChannelsError.noFields) {
      _ = try KernelChannels.read(connection: kernel.connection, types: kernel.types)
    }
  }

  @Test(.enabled(if: FakeKernel.isPossible)) func nothingAtTheAddress() throws {
    let kernel = try FakeKernel(.bytes)
    #expect(throws: KernelChannelsError.unreadable) {
      _ = try KernelChannels.read(connection: 0xFFFF_8000_0000_0000, types: kernel.types)
    }
  }

  /// The running kernel's own types: those of a kernel without VMBus.
  @Test(.enabled(if: FakeKernel.isPossible && !SysfsDirectory("/sys/bus/vmbus").exists))
  func thisKernelHasNoVMBus() throws {
    #expect(throws: KernelChannelsError.noVMBus) { _ = try KernelChannels.read() }
    let kernel = try FakeKernel(.bytes)
    #expect(throws: KernelChannelsError.noTypes) {
      _ = try KernelChannels.read(connection: kernel.connection, types: nil)
    }
  }

  @Test func aChannelIsLookedUp() throws {
    let channels = KernelChannels(channels: [
      KernelChannel(channel: ChannelID(4), subchannelIndex: 0, flags: .confidentialRingBuffer),
      KernelChannel(channel: ChannelID(5), subchannelIndex: 1, flags: .confidentialExternalMemory),
    ])
    #expect(try channels.confidentiality(of: ChannelID(4)) == .ring)
    #expect(throws: KernelChannelsError.unlawful(ChannelID(5))) {
      _ = try channels.confidentiality(of: ChannelID(5))
    }
    #expect(throws: KernelChannelsError.noSuchChannel(ChannelID(6))) {
      _ = try channels.confidentiality(of: ChannelID(6))
    }
  }
}
