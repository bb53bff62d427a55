// SPDX-License-Identifier: Apache-2.0

/// The instructions of a kernel that reach the hypervisor of an SNP machine past its paravisor. Without SNP
/// hardware KVM runs VMGEXIT as a plain VMMCALL, and passes the GHCB's register through to the processor: so
/// the one becomes the access of a port, and the other a register that nobody has, both of which stop the
/// processor.
enum GHCBInstructions {
  /// The register by which a guest says where it wants the reference TSC: Linux writes it when it has
  /// unpacked itself, and before it first needs a GHCB.
  static let firstRegister: UInt32 = 0x4000_0021
  /// Stands for MSR_AMD64_SEV_ES_GHCB.
  static let register: UInt32 = 0x4000_0130
  /// rep vmmcall
  private static let vmgexit: [UInt8] = [0xF3, 0x0F, 0x01, 0xD9]
  /// What follows the byte of `mov ecx`, or of `mov edi` for a function that reads registers: the number of
  /// MSR_AMD64_SEV_ES_GHCB.
  private static let number: [UInt8] = [0x30, 0x01, 0x01, 0xC0]
  private static let moves: Set<UInt8> = [0xB9, 0xBF]

  struct Replacement: Equatable {
    var offset: Int
    var bytes: [UInt8]
  }

  /// What is to be put where in a kernel's text.
  static func replacements(in text: [UInt8]) -> [Replacement] {
    text.indices.compactMap { offset in
      if text[offset] == vmgexit[0], text[offset...].starts(with: vmgexit) {
        // out port, al; nop; nop
        let port = UInt8(truncatingIfNeeded: MachineLayout.exitPort)
        return Replacement(offset: offset, bytes: [0xE6, port, 0x90, 0x90])
      }
      guard moves.contains(text[offset]), text[(offset + 1)...].starts(with: number) else {
        return nil
      }
      let bytes = (0..<4).map { UInt8(truncatingIfNeeded: register >> (8 * $0)) }
      return Replacement(offset: offset + 1, bytes: bytes)
    }
  }
}

extension MachineMemory {
  /// Replaces the instructions of the kernel that lies there.
  ///
  /// - Returns: false when it has none of one of the two kinds.
  func replaceGHCBInstructions(at address: UInt64, byteCount: Int) -> Bool {
    guard let text = read(address, count: byteCount) else { return false }
    let replacements = GHCBInstructions.replacements(in: text)
    for replacement in replacements {
      // What was read can be written.
      _ = write(address + UInt64(replacement.offset), replacement.bytes)
    }
    return Set(replacements.map { $0.bytes[0] }).count == 2
  }
}
