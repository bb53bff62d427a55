// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
public import VMBus

/// What all devices of this machine share: whether it hides memory from its host, and who can say which
/// memory a channel uses.
public final class LinuxMachine: Sendable {
  public let isolation = Isolation.current
  private let said: Confidentiality?
  /// What the kernel says of all channels, for people: asked once.
  private let kernelsWord = Lock<Result<KernelChannels, KernelChannelsError>?>(nil)

  /// - Parameter said: the operator's word on which memory channels use, where the machine itself does
  ///   not tell.
  public init(said: Confidentiality? = nil) { self.said = said }

  /// Whether memory may be hidden from the host: what is not known to be plain counts as that.
  public var isIsolated: Bool {
    if case .none = isolation { false } else { true }
  }

  /// Which memory a channel uses now.
  public func confidentiality(
    of channel: ChannelID
  ) throws(ConfidentialityUnknown) -> ChannelConfidentiality {
    try ChannelConfidentiality(isolation: isolation, said: said) { () throws(KernelChannelsError) in
      try KernelChannels.read().confidentiality(of: channel)
    }
  }

  /// What the kernel's own structure says of a channel, whether it is needed or not.
  public func kernelsWord(on channel: ChannelID) -> String {
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
}
