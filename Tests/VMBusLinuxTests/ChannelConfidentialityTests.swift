// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@testable import VMBusLinux

@Suite struct ChannelConfidentialityTests {
  static let confidential = Isolation.isolated(
    IsolatedMachine(kind: .sevSNP, hasParavisor: true, offersConfidentialVMBus: true))
  static let isolated = Isolation.isolated(
    IsolatedMachine(kind: .sevSNP, hasParavisor: true, offersConfidentialVMBus: false))

  private func ask(
    _ isolation: Isolation, said: Confidentiality?,
    kernel: Result<Confidentiality, KernelChannelsError>?
  ) throws(ConfidentialityUnknown) -> ChannelConfidentiality {
    try ChannelConfidentiality(isolation: isolation, said: said) {
      () throws(KernelChannelsError) in
      guard let kernel else {
        Issue.record("the kernel was asked, where the processor's word is enough")
        throw .noVMBus
      }
      return try kernel.get()
    }
  }

  /// Whatever the operator said: where nothing can be encrypted, nothing is.
  @Test(arguments: [nil] + Confidentiality.allCases) func theProcessorsWord(
    _ said: Confidentiality?
  ) throws {
    #expect(
      try ask(.none(.conventional), said: said, kernel: nil)
        == ChannelConfidentiality(.hostVisible, .notIsolated))
    #expect(
      try ask(Self.isolated, said: said, kernel: nil)
        == ChannelConfidentiality(.hostVisible, .noConfidentialVMBus))
  }

  @Test(arguments: Confidentiality.allCases, [Self.confidential, .unknown])
  func theKernelsWordStandsAboveTheOperators(
    _ kept: Confidentiality, _ isolation: Isolation
  ) throws {
    #expect(
      try ask(isolation, said: .ring, kernel: .success(kept))
        == ChannelConfidentiality(kept, .kernel))
  }

  @Test(arguments: Confidentiality.allCases, [Self.confidential, .unknown])
  func theOperatorsWordWhereTheKernelHasNone(
    _ said: Confidentiality, _ isolation: Isolation
  ) throws {
    #expect(
      try ask(isolation, said: said, kernel: .failure(.noPrivilege))
        == ChannelConfidentiality(said, .operatorsWord))
  }

  @Test(arguments: [Self.confidential, .unknown]) func otherwiseItIsUnknown(
    _ isolation: Isolation
  ) {
    #expect(throws: ConfidentialityUnknown(why: .noFields)) {
      _ = try ask(isolation, said: nil, kernel: .failure(.noFields))
    }
  }

  /// A kernel that knows of the channel, and says something that no channel may be, is no reason
  /// to believe the operator.
  @Test func anUnlawfulPairIsRefused() {
    let unlawful = KernelChannelsError.unlawful(ChannelID(3))
    #expect(throws: ConfidentialityUnknown(why: unlawful)) {
      _ = try ask(Self.confidential, said: .ring, kernel: .failure(unlawful))
    }
  }
}
