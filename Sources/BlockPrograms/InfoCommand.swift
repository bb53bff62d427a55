// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
public import BlockStorage
import ProgramSupport
public import VSC

public struct InfoCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "info", abstract: "Tells what the disk is and how its memory is seen.")
  }

  public init() {}

  @OptionGroup public var disk: Source

  @Flag(help: "Print JSON.")
  var json = false

  public func run() async throws {
    let report = try await disk.withDisk { disk in
      DiskReport(disk.information, memory: await disk.memoryStatistics())
    }
    print(json ? try jsonText(report) : report.text)
  }
}

/// What `info` prints.
public struct DiskReport: Encodable, Sendable {
  var vendor: String
  var product: String
  var revision: String
  var serial: String
  var byteCount: UInt64
  var blockSize: Int
  var blockCount: UInt64
  var physicalBlockSize: Int
  var isReadOnly: Bool
  var supportsForcedWrites: Bool
  /// Nil where the disk does not say.
  var hasWriteCache: Bool?
  var isRotating: Bool?
  var isThin: Bool
  var canDiscard: Bool
  var canFill: Bool
  var maximumTransfer: Int
  var storageProtocol: String
  var device: String
  /// Nil for what is not on VMBus.
  var relid: UInt32?
  var lun: UInt32?
  var namespace: UInt32?
  var channels: Int
  var transport: String
  var ringMemory: String
  var dataMemory: String
  var data: String
  /// Of the channels together; nil where it was not asked for.
  var memory: DMAStatistics?

  public init(_ information: BlockDevice.Information, memory: DMAStatistics? = nil) {
    self.memory = memory
    let disk = information.disk
    vendor = disk.vendor
    product = disk.product
    revision = disk.revision
    serial = disk.serial
    byteCount = disk.geometry.byteCount
    blockSize = disk.geometry.blockByteCount
    blockCount = disk.geometry.blockCount
    physicalBlockSize = disk.geometry.physicalBlockByteCount
    isReadOnly = disk.isReadOnly
    hasWriteCache = disk.hasWriteCache
    isRotating = disk.isRotating
    isThin = disk.provisioning.isThin
    canDiscard = disk.provisioning.canDiscard
    canFill = disk.provisioning.canFill
    supportsForcedWrites = disk.supportsForcedWrites
    maximumTransfer = disk.geometry.maximumTransferByteCount
    storageProtocol = disk.protocolName
    device = information.place.device
    relid = information.place.relid
    let number = information.place.number
    (lun, namespace) = relid == nil ? (nil, number) : (number, nil)
    channels = information.channelCount
    transport = information.place.transport
    // In a machine that is not isolated nothing is hidden, so nothing is "visible" either.
    let isPlain = information.dataMemory == .hostVisible && !information.isBounced
    ringMemory =
      isPlain && information.ringMemory == .hostVisible
      ? "plain" : "\(information.ringMemory)"
    dataMemory = isPlain ? "plain" : "\(information.dataMemory)"
    data = information.isBounced ? "bounced" : "direct"
  }

  /// A line for each disk of a controller.
  ///
  /// - Parameter number: what its number is called.
  public static func list(_ reports: [DiskReport], number: String) -> String {
    table(
      [[number, "size", "block", "access", "disk", "serial"]]
        + reports.map { report in
          [
            "\(report.lun ?? report.namespace ?? 0)", humanBytes(Double(report.byteCount)),
            "\(report.blockSize)", report.isReadOnly ? "read-only" : "read and write",
            [report.vendor, report.product].filter { !$0.isEmpty }.joined(separator: " "),
            report.serial.isEmpty ? "-" : report.serial,
          ]
        })
  }

  private var placeText: [String] {
    [relid.map { "relid \($0)" }, lun.map { "LUN \($0)" }, namespace.map { "namespace \($0)" }]
      .compactMap(\.self)
  }

  var text: String {
    var rows: [[String]] = [
      ["disk", [vendor, product, revision].filter { !$0.isEmpty }.joined(separator: " ")],
      ["serial", serial.isEmpty ? "-" : serial],
      ["size", "\(byteCount) bytes (\(humanBytes(Double(byteCount))))"],
      ["blocks", "\(blockCount) of \(blockSize) bytes, \(physicalBlockSize) physical"],
      ["access", isReadOnly ? "read-only" : "read and write"],
      ["forced writes", supportsForcedWrites ? "yes" : "no: a flush follows each"],
      ["write cache", hasWriteCache.map { $0 ? "yes" : "no" } ?? "unknown"],
      ["medium", isRotating.map { $0 ? "rotating" : "solid state" } ?? "unknown"],
      ["provisioning", isThin ? "thin" : "full"],
      ["discard", canDiscard ? "yes" : "no"],
      ["zeroes", canFill ? "by command" : "by writing"],
      ["maximum transfer", "\(maximumTransfer) bytes"],
      ["storage protocol", storageProtocol],
      ["device", ([device] + placeText + [transport]).joined(separator: ", ")],
      ["channels", "\(channels)"],
      ["ring memory", ringMemory],
      ["data memory", "\(dataMemory), \(data)"],
    ]
    if let memory { rows += [["DMA memory", memory.useText], ["copied", memory.copyText]] }
    return table(rows)
  }
}
