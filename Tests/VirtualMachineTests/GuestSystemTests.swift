// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct FileArchiveTests {
  // By hand from buffer-format.rst: a header of 110 bytes, name and content to multiples of 4.
  @Test func aFileIsAnEntry() {
    var archive = FileArchive()
    archive.addFile("/init", Array("#!x".utf8))
    let header =
      "070701" + "00000001" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000"
      + "00000003" + "00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000"
    let entry = Array(header.utf8) + Array("init".utf8) + [0, 0] + Array("#!x".utf8) + [0]
    let bytes = archive.bytes
    #expect(header.utf8.count == 110 && entry.count == 120)
    #expect(Array(bytes.prefix(120)) == entry)
    // 110 and 11 bytes, and three to the next multiple.
    #expect(Array(bytes.suffix(14)) == Array("TRAILER!!!".utf8) + [0, 0, 0, 0])
    #expect(bytes.count == 120 + 124)
  }

  @Test func directoriesComeOnceAndFirst() {
    var archive = FileArchive()
    archive.addFile("a/b/c", [])
    archive.addFile("a/b/d", [])
    let text = String(decoding: archive.bytes, as: UTF8.self)
    let names = text.split(separator: "070701").map { entry in
      String(entry.dropFirst(104).prefix { $0 != "\0" })
    }
    #expect(names == ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"])
  }
}

@Suite struct ModuleDependenciesTests {
  static let dependencies = ModuleDependencies(
    parsing: """
      kernel/drivers/scsi/scsi_common.ko.xz:
      kernel/drivers/scsi/scsi_mod.ko.xz: kernel/drivers/scsi/scsi_common.ko.xz
      kernel/drivers/hv/hv-vmbus.ko.xz:
      kernel/drivers/scsi/hv_storvsc.ko.xz: kernel/drivers/hv/hv-vmbus.ko.xz \
      kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz

      nonsense
      """)

  @Test func whatIsNeededComesFirst() {
    #expect(
      Self.dependencies.loadOrder(["hv_vmbus", "hv_storvsc"]) == [
        "kernel/drivers/hv/hv-vmbus.ko.xz", "kernel/drivers/scsi/scsi_common.ko.xz",
        "kernel/drivers/scsi/scsi_mod.ko.xz", "kernel/drivers/scsi/hv_storvsc.ko.xz",
      ])
  }

  @Test func whatIsNotThereIsBuiltIn() {
    #expect(Self.dependencies.loadOrder(["ext4", "sd_mod"]) == [])
    #expect(ModuleDependencies(parsing: "").loadOrder(["ext4"]) == [])
  }
}

@Suite struct FramedOutputTests {
  static let console = Array("boots\n\u{1}T1\nhello\n\u{1}x\u{1}T\n\u{1}T1 7\nPower down\n".utf8)
  static let output = Array("hello\n\u{1}x\u{1}T\n".utf8)

  /// However the bytes come.
  @Test(arguments: [1, 2, 3, 5, 1000]) func theOutputIsTakenOut(_ size: Int) {
    var frame = FramedOutput(token: "T1")
    var output: [UInt8] = []
    for start in stride(from: 0, to: Self.console.count, by: size) {
      output += frame.take(Array(Self.console[start..<min(start + size, Self.console.count)]))
    }
    #expect(output == Self.output)
    #expect(frame.status == 7)
  }

  @Test func aMachineThatEndsEarlyHasNoStatus() {
    var frame = FramedOutput(token: "T1")
    #expect(frame.take(Array("\u{1}T1\nhello\u{1}T1 ".utf8)) == Array("hello".utf8))
    #expect(frame.status == nil)
  }

  @Test func aStatusThatIsNoNumberIsNone() {
    var frame = FramedOutput(token: "T1")
    _ = frame.take(Array("\u{1}T1\n\u{1}T1 x\n".utf8))
    #expect(frame.status == -1)
  }
}
