// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The first message of each component, behind the header: the versions that the host speaks, or in
/// the answer the two that the guest has chosen. The framework's versions follow, then the messages'.
public struct IntegrationNegotiation: WireLayout, Equatable {
  public static let name: WireName = "IntegrationNegotiation"
  public static let byteCount = 8

  public var frameworkVersionCount: UInt16 = 0
  public var messageVersionCount: UInt16 = 0

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("framework_version_count", &frameworkVersionCount)
    visitor.integer("message_version_count", &messageVersionCount)
    visitor.padding(4)
  }

  /// What the host asks with.
  public static func request(
    framework: [IntegrationVersion], messages: [IntegrationVersion]
  ) -> [UInt8] {
    var negotiation = IntegrationNegotiation()
    negotiation.frameworkVersionCount = UInt16(truncatingIfNeeded: framework.count)
    negotiation.messageVersionCount = UInt16(truncatingIfNeeded: messages.count)
    return negotiation.wireBytes + (framework + messages).flatMap(\.wireBytes)
  }

  /// The versions of a guest's answer, or nil when it has found none that it speaks.
  public static func chosen(
    in body: RawSpan
  ) throws(WireError) -> (framework: IntegrationVersion, message: IntegrationVersion)? {
    var reader = WireReader(body, name: name)
    let negotiation = try reader.read(IntegrationNegotiation.self)
    guard negotiation.frameworkVersionCount == 1, negotiation.messageVersionCount == 1 else {
      return nil
    }
    return (try reader.read(), try reader.read())
  }
}
