// SPDX-License-Identifier: Apache-2.0

public import VSC

/// Why a PCI function did not do what was asked: one line for a person.
public enum PCIError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The function is over: it was taken away, or its device is gone.
  case ended(ChannelEnd)
  /// Something that is no affair of PCI alone: permissions, memory, the system.
  case transport(TransportError)
  /// The function has no such BAR, or it is no memory that can be mapped.
  case noBAR(Int)
  /// An access that does not lie within a BAR or the configuration space, or not on a multiple of its
  /// width.
  case badAccess(offset: Int, byteCount: Int, limit: Int)
  /// It has fewer interrupt vectors.
  case noVectors(asked: Int, available: Int)
  /// It can't be reset by itself.
  case noReset
  /// It was not opened yet, or was closed.
  case notOpen

  public var description: String {
    switch self {
    case .ended(.rescinded): "the PCI function was taken away"
    case .ended(.hostGone): "the PCI function's device is gone"
    case .ended(let end): end.description
    case .transport(let error): error.description
    case .noBAR(let index): "BAR \(index) is not there, or is no memory that can be mapped"
    case .badAccess(let offset, let count, let limit):
      "\(count) bytes at \(offset) are no register: there are \(limit) bytes"
    case .noVectors(let asked, let available):
      "\(asked) interrupt vectors are needed, and there are \(available)"
    case .noReset: "the PCI function can't be reset"
    case .notOpen: "the PCI function is not open"
    }
  }
}
