// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO

/// Brings a frame that the host is to cut into segments into the shape that NDIS demands: lengths and
/// sums over them are the host's to fill in. A frame that is not what its info says is left as it is.
@usableFromInline
@_lifetime(frame: copy frame)
func prepareLargeSend(_ frame: inout MutableRawSpan, _ info: LargeSendInfo) {
  guard let headers = FrameHeaders(frame.bytes), headers.transportOffset == info.tcpHeaderOffset,
    (headers.network == .ipv6) == info.isIPv6
  else { return }
  _ = LargeSend.clearLengths(of: &frame, headers)
}
