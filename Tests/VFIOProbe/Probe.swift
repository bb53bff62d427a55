// SPDX-License-Identifier: Apache-2.0

// Drives an NVMe function by VFIO, for scripts/vm-test:
//   vfio-probe list                      the functions, and what is in the way of each
//   vfio-probe bind|unbind ADDRESS       gives it to VFIO, and back
//   vfio-probe identify ADDRESS WAY      starts the controller, identifies it, resets it, and again
//   vfio-probe outside ADDRESS WAY       lets the controller write where nothing is mapped
//   vfio-probe read-only ADDRESS WAY     lets it write to what it may only read
//   vfio-probe reset ADDRESS WAY COUNT   resets it so many times, with a command under way
//   vfio-probe loop ADDRESS WAY          identifies it until it goes away, then gives it back
//   vfio-probe hold ADDRESS WAY          keeps it with bus mastering on, and shows where its memory lies
//   vfio-probe again ADDRESS WAY COUNT   opens and closes it so many times
// WAY is one of those that VFIO has; "best" leaves it to the library.

import CLinux
import PCIFunction
import Platform
import VFIOPCI
import VMBus
import VSC

func address(_ text: String) throws -> PCIAddress {
  guard let address = PCIAddress(text) else {
    throw Failure(description: "'\(text)' is no address of a PCI function")
  }
  return address
}

func function(_ text: String, _ way: String) throws -> any PCIFunction {
  let wanted = try address(text)
  var configuration = VFIOBus.Configuration()
  configuration.way = VFIOWay(rawValue: way)
  guard
    let found = try VFIOBus(configuration).functions.first(where: {
      $0.identity.address == wanted
    })
  else { throw Failure(description: "there is no function \(text)") }
  return found
}

func opened(_ text: String, _ way: String) async throws -> any PCIFunction {
  let function = try function(text, way)
  try await function.open()
  return function
}

func identify(_ text: String, _ way: String) async throws {
  let function = try await opened(text, way)
  let identity = function.identity
  print("\(identity.address) \(identity.transport), \(function.vectorCount) vectors")
  let vendor = try function.readConfiguration(at: 0, width: 2)
  guard vendor == UInt32(identity.vendor) else {
    throw Failure(description: "the configuration space has another vendor, \(vendor)")
  }
  for round in 1...2 {
    let controller = try await Controller(function)
    for _ in 0..<20 {
      guard let serial = try await controller.serialNumber() else {
        throw Failure(description: "no answer, and no interrupt")
      }
      guard serial == "vmbus-test" else {
        throw Failure(description: "another serial number, '\(serial)'")
      }
    }
    print("round \(round): serial number vmbus-test, 20 interrupts seen")
    try await function.reset()
    controller.worker.stop()
    let command = try function.readConfiguration(at: 4, width: 2)
    let status = try controller.registers.read32(at: 0x1C)
    guard command & 4 == 0, status & 1 == 0 else {
      throw Failure(description: "after a reset: command \(command), controller's status \(status)")
    }
  }
  await function.close()
}

/// Where no memory of the function is: an IOMMU stops it. QEMU's controller does not notice.
func outside(_ text: String, _ way: String) async throws {
  let function = try await opened(text, way)
  let controller = try await Controller(function)
  let status = try await controller.identify(into: 0x7_0000_0000)
  print("status \(status.map { "0x" + String($0, radix: 16) } ?? "none")")
  guard try await controller.serialNumber() == "vmbus-test" else {
    throw Failure(description: "the controller does not work any more")
  }
  await controller.close()
}

func readOnly(_ text: String, _ way: String) async throws {
  let function = try await opened(text, way)
  let controller = try await Controller(function)
  let memory = try function.allocate(.hostVisible, byteCount: 4096, .read)
  unsafe memory.start.initializeMemory(as: UInt8.self, repeating: 0x5A, count: 4096)
  let status = try await controller.identify(into: Controller.address(memory, page: 0))
  print("status \(status.map { "0x" + String($0, radix: 16) } ?? "none")")
  // Safe: within the page.
  guard (0..<4096).allSatisfy({ unsafe (memory.start + $0).load(as: UInt8.self) == 0x5A })
  else { throw Failure(description: "the controller wrote to memory that it may only read") }
  await controller.close()
}

/// Each time the controller is started anew, and answers.
func reset(_ text: String, _ way: String, _ count: Int) async throws {
  let function = try await opened(text, way)
  for _ in 0..<count {
    let controller = try await Controller(function)
    async let _ = controller.identify(into: Controller.address(controller.memory, page: 2))
    try await function.reset()
    controller.worker.stop()
  }
  let controller = try await Controller(function)
  guard try await controller.serialNumber() == "vmbus-test" else {
    throw Failure(description: "no answer after \(count) resets")
  }
  await controller.close()
  print("\(count) resets")
}

func loop(_ text: String, _ way: String) async throws {
  let function = try await opened(text, way)
  let controller = try await Controller(function)
  print("running")
  flushOutput()
  var count = 0
  while function.endReason == nil, try await controller.serialNumber() != nil { count += 1 }
  let reason = await function.ended()
  await controller.close()
  // What was registers reads as if nobody answered, and kills nobody.
  let status = try controller.registers.read32(at: 0x1C)
  print("\(count > 0 ? "worked" : "did not work"), then: \(reason), status \(status == .max)")
}

func hold(_ text: String, _ way: String) async throws {
  let function = try await opened(text, way)
  let controller = try await Controller(function)
  guard try await controller.serialNumber() != nil else {
    throw Failure(description: "no answer")
  }
  print("held, page 0x\(String(Controller.address(controller.memory, page: 2), radix: 16))")
  flushOutput()
  while true { try await Task.sleep(for: .seconds(1)) }
}

func again(_ text: String, _ way: String, _ count: Int) async throws {
  for _ in 0..<count {
    let controller = try await Controller(opened(text, way))
    _ = try await controller.serialNumber()
    await controller.close()
  }
  print("\(count) times")
}

func list() throws {
  for function in try VFIOBus().functions {
    let properties = function.properties.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
    print(
      "\(function.identity.address) class \(String(function.identity.classCode, radix: 16)), "
        + "\(properties): \(function.obstacle?.description ?? "can be opened")")
  }
}

func run(_ words: [String]) async throws {
  let way = words.count > 2 ? words[2] : "best"
  switch (words.first, words.count) {
  case ("list", 1): try list()
  case ("bind", 2): try await PCIBinding().bind(address(words[1]))
  case ("unbind", 2): try await PCIBinding().restore(address(words[1]))
  case ("identify", 2...3): try await identify(words[1], way)
  case ("outside", 2...3): try await outside(words[1], way)
  case ("read-only", 2...3): try await readOnly(words[1], way)
  case ("reset", 4): try await reset(words[1], way, Int(words[3]) ?? 1)
  case ("loop", 2...3): try await loop(words[1], way)
  case ("hold", 2...3): try await hold(words[1], way)
  case ("again", 4): try await again(words[1], way, Int(words[3]) ?? 1)
  default: throw Failure(description: "see the beginning of Tests/VFIOProbe/Probe.swift")
  }
}
