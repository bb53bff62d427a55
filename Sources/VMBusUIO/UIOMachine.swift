// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// What all devices of this machine share: whether it is isolated, and where its pages lie.
final class UIOMachine: Sendable {
  private let pageMap: PageMap?
  private let pageMapError: Errno?
  let isolation = Isolation.current
  private let said: Confidentiality?
  /// What the kernel says of all channels, for people: asked once.
  private let kernelsWord = Lock<Result<KernelChannels, KernelChannelsError>?>(nil)

  init(_ configuration: UIOBus.Configuration) {
    said = configuration.confidentiality
    do throws(Errno) {
      pageMap = try PageMap()
      pageMapError = nil
    } catch {
      pageMap = nil
      pageMapError = error
    }
  }

  /// Linux gives user space no other signal for a channel with a monitor.
  static let noDoorbell =
    "the host can't be signalled: this machine is or may be isolated, and there its monitor page is mapped with the wrong encryption"

  /// Memory that may be written to as long as this process lives.
  private static let kept = Lock<[any AnyObject & Sendable]>([])

  static func keepForEver(_ memory: [any AnyObject & Sendable]) {
    kept.withLock { $0 += memory }
  }

  /// Whether memory may be hidden from the host: what is not known to be plain counts as that.
  var isIsolated: Bool {
    if case .none = isolation { false } else { true }
  }

  /// Which memory a channel uses now.
  func confidentiality(
    of channel: ChannelID
  ) throws(ConfidentialityUnknown) -> ChannelConfidentiality {
    try ChannelConfidentiality(isolation: isolation, said: said) { () throws(KernelChannelsError) in
      try KernelChannels.read().confidentiality(of: channel)
    }
  }

  /// What the kernel's own structure says of a channel, whether it is needed or not.
  func kernelsWord(on channel: ChannelID) -> String {
    let word = kernelsWord.withLock { word in
      let known = word ?? Result { () throws(KernelChannelsError) in try KernelChannels.read() }
      word = known
      return known
    }
    do throws(KernelChannelsError) {
      return "\(try word.get().confidentiality(of: channel))"
    } catch {
      return "not known: \(error)"
    }
  }

  /// Memory whose physical addresses a device may be given.
  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> UIOMemory {
    switch (memory, isIsolated) {
    case (.encrypted, false): throw .noSuchMemory(.encrypted)
    case (.hostVisible, true):
      throw .unusable(
        reason:
          "this machine is or may be isolated, and there a stock kernel gives user space no host-visible memory"
      )
    default: break
    }
    guard let pageMap else {
      let error = pageMapError ?? .permissionDenied
      throw .system("page map", code: error.rawValue, text: "/proc/self/pagemap: \(error)")
    }
    return try UIOMemory(byteCount: byteCount, pageMap)
  }
}
