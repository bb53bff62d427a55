// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import SystemPackage
import VMBus

/// What the driver asks for over the socket, answered between two rounds of the device.
extension NVMeDevice {
  /// Answers one message. Returns false when the driver is gone, or no driver.
  func answer(_ socket: borrowing PacketSocket) -> Bool {
    let received: SocketMessage?
    do throws(Errno) {
      received = try socket.receive()
    } catch .resourceTemporarilyUnavailable {
      return true
    } catch {
      return false
    }
    guard let message = received, let header = try? LinkHeader(parsing: message.bytes) else {
      return false
    }
    let body = Array(message.bytes.dropFirst(LinkHeader.byteCount))
    do {
      let answer = try answer(PCILinkCall(rawValue: header.call), body, message)
      try socket.send(PCILinkAnswer().wireBytes + answer.bytes, descriptors: answer.descriptors)
      return true
    } catch let error as Errno {
      let refusal = PCILinkAnswer(error: UInt32(clamping: error.rawValue))
      return (try? socket.send(refusal.wireBytes)) != nil
    } catch {
      let refusal = PCILinkAnswer(error: UInt32(clamping: Errno.invalidArgument.rawValue))
      return (try? socket.send(refusal.wireBytes)) != nil
    }
  }

  private func answer(
    _ call: PCILinkCall?, _ body: [UInt8], _ message: SocketMessage
  ) throws -> (bytes: [UInt8], descriptors: [Int32]) {
    switch call {
    case .attach:
      var function = PCILinkFunction()
      function.vendor = 0x1B36
      function.device = 0x0010
      function.classCode = 0x010802
      function.slot = 1 << 3
      function.vectorCount = UInt16(clamping: settings.vectorCount)
      function.registerByteCount = UInt64(Self.registerByteCount)
      return (function.wireBytes, [barFile.owned.rawValue])
    case .readConfiguration:
      var register = try PCILinkConfiguration(parsing: body)
      let range = try place(register)
      register.value = range.reversed().reduce(0) { $0 << 8 | UInt32(configurationSpace[$1]) }
      return (register.wireBytes, [])
    case .writeConfiguration:
      let register = try PCILinkConfiguration(parsing: body)
      for (index, offset) in try place(register).enumerated() where 4..<6 ~= offset {
        // Of these registers only the command register is the driver's to write.
        configurationSpace[offset] = UInt8(truncatingIfNeeded: register.value >> (8 * index))
      }
      return ([], [])
    case .setInterrupts:
      guard message.descriptorCount <= settings.vectorCount else { throw Errno.invalidArgument }
      var events: [EventBox] = []
      for index in 0..<message.descriptorCount {
        guard let descriptor = message.takeDescriptor(index),
          EventDescriptor.adopt(descriptor.rawValue)
        else { throw Errno.invalidArgument }
        events.append(EventBox(descriptor))
      }
      interrupts = events
      return ([], [])
    case .map:
      let window = try PCILinkWindow(parsing: body)
      guard let descriptor = message.takeDescriptor(0) else { throw Errno.badFileDescriptor }
      try windows.map(
        address: window.address, byteCount: window.byteCount, access: window.access,
        MemoryFile(received: descriptor))
      return ([], [])
    case .unmap:
      let window = try PCILinkWindow(parsing: body)
      try windows.unmap(address: window.address, byteCount: window.byteCount)
      return ([], [])
    case .reset:
      reset()
      return ([], [])
    case nil: throw Errno.notSupported
    }
  }

  private func place(_ register: PCILinkConfiguration) throws(Errno) -> Range<Int> {
    let (offset, width) = (Int(register.offset), Int(register.width))
    guard [1, 2, 4].contains(width), offset + width <= configurationSpace.count else {
      throw .invalidArgument
    }
    return offset..<offset + width
  }

  /// The driver is gone: nothing of what it gave is touched any more.
  func detach() {
    reset()
    windows.removeAll()
    interrupts = []
  }
}

/// An interrupt of the driver.
final class EventBox {
  private let event: EventDescriptor

  init(_ descriptor: consuming OwnedDescriptor) { event = EventDescriptor(descriptor) }

  func signal() { event.signalWithoutBlocking() }
}
