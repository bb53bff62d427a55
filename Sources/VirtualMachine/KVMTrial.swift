// SPDX-License-Identifier: Apache-2.0

import CKVM
import Platform
import SystemPackage

extension KVM {
  /// A port that the trial's program writes to.
  private static let trialPort: UInt8 = 0xF4

  /// Makes a machine and lets its processor execute an instruction: that /dev/kvm can be opened
  /// says little.
  ///
  /// - Throws: what does not work.
  static func check() throws(MachineError) {
    let kvm = try KVM()
    // Where a processor begins after its reset is the end of a page below 4 GiB.
    let page: MappedMemory
    do throws(Errno) {
      let file = try MemoryFile(name: "kvm-trial", byteCount: 4096)
      page = try file.map()
    } catch {
      throw .memory(error)
    }
    // out TRIAL, al; hlt
    let program: [UInt8] = [0xE6, trialPort, 0xF4]
    unsafe (page.start + 0xFF0).copyMemory(from: program, byteCount: program.count)
    let machine = try kvm.makeMachine()
    try step(
      "give it memory",
      unsafe vmbus_kvm_set_memory(machine.rawValue, 0, 0xFFFF_F000, page.start, 4096))
    let processor = try kvm.makeProcessor(0, of: machine)
    try processor.enableSynIC()
    _ = try processor.supportedHyperVLeaves()
    let exit: vmbus_kvm_exit
    do throws(Errno) {
      unsafe exit = try processor.run()
    } catch {
      throw .unusable(step: "run a processor", error)
    }
    guard unsafe exit.reason == UInt32(KVM_EXIT_IO), unsafe exit.address == UInt64(trialPort)
    else {
      let (reason, detail) = unsafe (exit.reason, exit.detail)
      throw .notRunning("stopped for reason \(reason) (\(detail))")
    }
  }
}
