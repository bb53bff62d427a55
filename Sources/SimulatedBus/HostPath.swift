// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import VMBus
import VSC

/// How a guest with a paravisor calls its host past it: by a page that both see and an exit (SNP),
/// or by a tdcall that names such a page (TDX). A machine that is isolated by the hypervisor alone
/// (VBS) makes plain hypercalls.
@safe
final class HostPath: Sendable {
  let link: GuestLink
  private let way: Way
  /// Processor 0's GHCB or hypercall input page: one message at a time lies there.
  private let page: Lock<PageAllocation>

  enum Way {
    case ghcb
    case tdcall
    case hypercall
  }

  init(_ link: GuestLink, _ isolation: Isolation, _ page: PageAllocation) throws(LinkError) {
    self.link = link
    self.page = Lock(page)
    guard case .isolated(let machine) = isolation else {
      way = .hypercall
      return
    }
    switch machine.kind {
    case .sevSNP:
      way = .ghcb
      try link.setGHCB(processor: 0, page: page.firstPage)
    case .tdx: way = .tdcall
    case .vbs, .other: way = .hypercall
    }
  }

  /// HvPostMessage.
  func postMessage(connectionID: UInt32, _ payload: [UInt8]) throws(LinkError) -> HypercallStatus {
    guard way != .hypercall else {
      return try link.postMessage(
        connectionID: connectionID, messageType: SynIC.vmbusMessage, payload)
    }
    var message = PostedMessage()
    message.connectionID = connectionID
    message.type = SynIC.vmbusMessage
    message.payloadByteCount = UInt32(clamping: payload.count)
    var input = message.wireBytes + payload
    input += Array(repeating: 0, count: max(PostedMessage.inputByteCount - input.count, 0))
    let result = page.withLock { page -> Result<HypercallStatus, LinkError> in
      // Safe: the page is this object's, and `input` is far shorter.
      unsafe UnsafeMutableRawBufferPointer(start: page.start, count: input.count)
        .copyBytes(from: input)
      do throws(LinkError) {
        return .success(way == .ghcb ? try exit(page) : try tdcall(page))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  private func exit(_ page: PageAllocation) throws(LinkError) -> HypercallStatus {
    let code = unsafe page.start + GHCBHypercall.codeOffset
    unsafe code.storeBytes(of: Hypercall.postMessageCode.littleEndian, as: UInt64.self)
    try link.vmgexit(processor: 0)
    // The host's word, read once.
    return HypercallStatus(
      rawValue: UInt16(truncatingIfNeeded: UInt64(littleEndian: unsafe code.load(as: UInt64.self))))
  }

  private func tdcall(_ page: PageAllocation) throws(LinkError) -> HypercallStatus {
    try link.tdcall(input: Hypercall.postMessageCode, parameter: page.firstPage * 4096)
  }
}
