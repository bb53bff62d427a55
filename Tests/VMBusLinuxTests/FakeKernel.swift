// SPDX-License-Identifier: Apache-2.0

import CBPF
import Foundation

/// The structures of a kernel with VMBus, made in the memory of the running one by a BPF program;
/// they are there as long as this lives.
@safe
final class FakeKernel {
  /// How a kernel keeps whether a channel is encrypted.
  enum Fields: Int {
    case none, bytes, bits
  }

  struct Failure: Error {
    var what: String
  }

  /// Where its `vmbus_connection` lies.
  let connection: UInt64
  /// The file with its type information.
  let types: String
  private let object: OpaquePointer

  /// Whether this machine lets us: the right user, a kernel with BPF, and a compiler.
  static let isPossible =
    geteuid() == 0 && FileManager.default.fileExists(atPath: "/sys/kernel/btf/vmlinux")
    && libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SYSCALL, nil) == 1
    && (try? run(["clang", "-target", "bpfel", "-x", "c", "-c", "/dev/null", "-o", "/dev/null"]))
      != nil

  init(_ fields: Fields) throws {
    let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("Fixtures/fake-kernel.bpf.c").path
    types = NSTemporaryDirectory() + "vmbus-fake-kernel-\(UUID().uuidString).o"
    try Self.run([
      "clang", "-target", "bpfel", "-O2", "-g", "-DFIELDS=\(fields.rawValue)",
      "-idirafter", "/usr/include/\(Self.multiarch)", "-c", source, "-o", types,
    ])
    vmbus_bpf_be_quiet()
    guard let object = unsafe bpf_object__open(types) else { throw Failure(what: "open") }
    unsafe self.object = object
    var request: UInt64 = 0
    var outcome: Int32 = -1
    let loaded = unsafe bpf_object__load(object)
    let result = unsafe vmbus_bpf_run(
      vmbus_bpf_program(object, "make"), &request, UInt32(MemoryLayout<UInt64>.size), &outcome)
    connection = request
    guard loaded == 0, result == 0, outcome == 0 else {
      throw Failure(what: "load \(loaded), run \(result), outcome \(outcome)")
    }
  }

  deinit {
    unsafe bpf_object__close(object)
    try? FileManager.default.removeItem(atPath: types)
  }

  private static var multiarch: String {
    #if arch(arm64)
      "aarch64-linux-gnu"
    #else
      "x86_64-linux-gnu"
    #endif
  }

  private static func run(_ command: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure(what: command.joined(separator: " "))
    }
  }
}
