// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import FoundationEssentials
import Platform
import SystemPackage

/// A socket at which a running program tells what it does: who connects is sent one JSON object, in
/// messages of at most 4096 bytes, and then the end.
final class StatisticsSocket: Sendable {
  private static let messageByteCount = 4096

  private let listener: PacketListener
  private let worker: Worker

  /// - Parameter report: what is sent; empty when there is nothing to tell.
  init(path: String, report: @escaping @Sendable () async -> String) throws {
    do throws(Errno) {
      listener = try PacketListener(path: path)
      worker = try Worker(.init(name: "statistics", spinRounds: 0))
    } catch {
      throw ProgramFailure(.cannotCreate, "--stats \(path): \(error)")
    }
    worker.watch(listener.owned.rawValue) { [unowned self] in
      while let socket = (try? self.listener.accept()) ?? nil {
        let connection = Connection(socket)
        Task { connection.send(await report()) }
      }
    }
  }

  func close() {
    listener.removePath()
    worker.stop()
  }

  private final class Connection: Sendable {
    let socket: PacketSocket

    init(_ socket: consuming PacketSocket) { self.socket = socket }

    /// One who does not read gets no more than the system keeps for him.
    func send(_ text: String) {
      var rest = Array(text.utf8)[...]
      while !rest.isEmpty {
        guard (try? socket.send([UInt8](rest.prefix(messageByteCount)))) != nil else { return }
        rest = rest.dropFirst(messageByteCount)
      }
    }
  }

  /// Asks a running program.
  static func ask(path: String) throws -> String {
    var bytes: [UInt8] = []
    do throws(Errno) {
      let socket = try PacketSocket(connectingTo: path)
      while let message = try socket.receive() { bytes += message.bytes }
    } catch {
      throw ProgramFailure(
        .unavailable, "\(path): \(error): no program with --stats \(path) runs")
    }
    guard !bytes.isEmpty else {
      throw ProgramFailure(.unavailable, "\(path): the program has no device just now")
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  static func askReport(path: String) throws -> InterfaceReport {
    let text = try ask(path: path)
    do {
      return try JSONDecoder().decode(InterfaceReport.self, from: Data(text.utf8))
    } catch {
      throw ProgramFailure(.data, "\(path): what answers there is no vsc-network of this version")
    }
  }
}
