// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// What of a channel is encrypted, and who says so.
public struct ChannelConfidentiality: Sendable, Equatable {
  public enum Source: Sendable, Equatable {
    /// The machine is not isolated: there is nothing to hide.
    case notIsolated
    /// The machine is isolated, and its kernel can have no channel but host-visible ones.
    case noConfidentialVMBus
    /// The kernel's own structure of this channel.
    case kernel
    case operatorsWord
  }

  public var value: Confidentiality
  public var source: Source

  public init(_ value: Confidentiality, _ source: Source) {
    self.value = value
    self.source = source
  }

  /// Finds out, asking in the order of trust: the processor, the kernel, the operator.
  ///
  /// - Parameters:
  ///   - kernel: what the kernel's structure of this channel says. Not called where the processor's
  ///     answer is enough.
  ///   - said: what an operator said of this device.
  public init(
    isolation: Isolation, said: Confidentiality?,
    kernel: () throws(KernelChannelsError) -> Confidentiality
  ) throws(ConfidentialityUnknown) {
    switch isolation {
    case .none:
      self.init(.hostVisible, .notIsolated)
      return
    case .isolated(let machine) where !machine.offersConfidentialVMBus:
      self.init(.hostVisible, .noConfidentialVMBus)
      return
    case .isolated, .unknown: break
    }
    do throws(KernelChannelsError) {
      self.init(try kernel(), .kernel)
    } catch {
      // Where the kernel could be asked, nobody's word stands against its answer.
      switch error {
      case .unlawful, .noSuchChannel, .unreadable: throw ConfidentialityUnknown(why: error)
      default: break
      }
      guard let said else { throw ConfidentialityUnknown(why: error) }
      self.init(said, .operatorsWord)
    }
  }
}

extension ChannelConfidentiality.Source: CustomStringConvertible {
  public var description: String {
    switch self {
    case .notIsolated: "the machine is not isolated"
    case .noConfidentialVMBus: "the machine has no confidential VMBus"
    case .kernel: "read from the kernel"
    case .operatorsWord: "as the operator said"
    }
  }
}

/// The machine may have encrypted rings, and nobody says whether this one is: the ring is not
/// touched, since memory mapped with the wrong encryption is garbage or a fault.
public struct ConfidentialityUnknown: Error, Sendable, Equatable {
  /// Why the kernel could not be asked.
  public var why: KernelChannelsError
}

extension ConfidentialityUnknown: CustomStringConvertible {
  public var description: String { "whether the ring is encrypted is unknown: \(why)" }
}
