// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol

/// How the host divides a guest's receive buffer: into pieces of equal size, each for one frame.
public struct ReceiveBufferDivision: Equatable, Sendable {
  /// Bytes of a piece.
  public let pieceByteCount: Int
  public let pieceCount: Int

  /// Where a frame begins in its piece; before it are the RNDIS headers.
  public static let dataOffset = 256
  /// Newer network clients of Windows do not look at the last bytes of a piece, by a fault of theirs.
  static let unusableByteCount = 36
  /// Kept for control messages, so that data can't take all.
  public static let controlPieceCount = 16
  /// Pieces that one packet may name.
  public static let maximumPiecesPerPacket = 375

  /// - Returns: nil for a buffer that is too small, or larger than any guest's.
  public init?(byteCount: Int, frameByteCount: Int) {
    pieceByteCount = Self.dataOffset + frameByteCount + Self.unusableByteCount
    pieceCount = byteCount / pieceByteCount
    guard byteCount <= 1 << 30, pieceCount > 2 * Self.controlPieceCount else { return nil }
  }

  /// Bytes of a frame that a piece has room for.
  public var dataByteCount: Int {
    pieceByteCount - Self.dataOffset - Self.unusableByteCount
  }

  public var section: ReceiveBufferSection {
    ReceiveBufferSection(
      offset: 0, suballocationByteCount: UInt32(pieceByteCount),
      suballocationCount: UInt32(pieceCount), endOffset: UInt32(pieceByteCount * pieceCount))
  }
}
