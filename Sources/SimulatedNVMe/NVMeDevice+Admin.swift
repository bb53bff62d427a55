// SPDX-License-Identifier: Apache-2.0

import NVMeProtocol
import SimulatedHost
import VMBus

/// The commands of the admin queue.
extension NVMeDevice {
  func administer(_ command: NVMeCommand) -> Outcome {
    guard let opcode = NVMeAdminOpcode(rawValue: command.opcode) else {
      return .status(.invalidOpcode)
    }
    switch opcode {
    case .identify: return identify(command)
    case .createCompletionQueue: return .status(createCompletionQueue(command))
    case .createSubmissionQueue: return .status(createSubmissionQueue(command))
    case .deleteSubmissionQueue: return .status(deleteSubmissionQueue(command))
    case .deleteCompletionQueue: return .status(deleteCompletionQueue(command))
    case .setFeatures, .getFeatures: return feature(command, isSet: opcode == .setFeatures)
    case .getLogPage: return .status(logPage(command))
    case .abort: return abort(command)
    case .asynchronousEvent:
      guard listeners.count < 4 else { return .status(.eventLimitExceeded) }
      listeners.append(command.identifier)
      return .later
    }
  }

  private func identify(_ command: NVMeCommand) -> Outcome {
    var answer: [UInt8]
    switch command.word10 & 0xFF {
    case 0:
      let id = command.namespace
      guard id > 0, id != .max else { return .status(.invalidNamespace) }
      guard id <= UInt32(namespaces.count) else { return .status(.invalidNamespace) }
      answer = namespaceData(Int(id) - 1).wireBytes
    case 1: answer = controllerData.wireBytes
    case 2:
      answer = []
      for id in 1...max(namespaces.count, 1) where id > Int(clamping: command.namespace) {
        answer += (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) }
      }
    default: return .status(.invalidField)
    }
    answer += [UInt8](repeating: 0, count: 4096 - answer.count)
    return .status(transfer(answer, to: command))
  }

  private var controllerData: NVMeControllerData {
    var data = NVMeControllerData()
    data.vendor = 0x1B36
    data.serial = TextBytes(settings.serial)
    data.model = TextBytes("Simulated NVMe")
    data.firmware = TextBytes("1.0")
    data.maximumTransfer = settings.maximumTransferPower
    data.version = NVMeVersion(rawValue: 0x0001_0400)
    data.optionalEvents = 1 << 8
    data.abortLimit = 3
    data.eventLimit = 3
    data.submissionEntrySizes = 0x66
    data.completionEntrySizes = 0x44
    data.namespaceCount = UInt32(namespaces.count)
    data.optionalCommands = 1 << 2 | 1 << 3
    data.writeCache = 1
    data.scatterGather = settings.takesDescriptors ? 1 : 0
    return data
  }

  private func namespaceData(_ index: Int) -> NVMeNamespaceData {
    var data = NVMeNamespaceData()
    let namespace = namespaces[index]
    data.size = namespace.blockCount
    data.capacity = namespace.blockCount
    data.used = namespace.blockCount
    data.features = 1
    data.deallocation = 1 | 1 << 3
    if namespace.image.isReadOnly { data.attributes = 1 }
    data.formats[2] = UInt8(namespace.blockByteCount.trailingZeroBitCount)
    return data
  }

  private func createCompletionQueue(_ command: NVMeCommand) -> NVMeCondition {
    let number = Int(command.word10 & 0xFFFF)
    guard 1...queueLimit ~= number, completions[number] == nil else { return .invalidQueue }
    let entries = Int(command.word10 >> 16) + 1
    guard 2...Self.maximumEntries ~= entries else { return .invalidQueueSize }
    guard command.word11 & 1 == 1, command.data1 & 4095 == 0 else { return .invalidField }
    let vector = Int(command.word11 >> 16)
    guard vector < settings.vectorCount else { return .invalidVector }
    completions[number] = CompletionQueue(
      address: command.data1, entries: entries, vector: command.word11 & 2 != 0 ? vector : nil)
    write32(0, NVMeRegister.head(UInt16(number), stride: 4))
    return .success
  }

  private func createSubmissionQueue(_ command: NVMeCommand) -> NVMeCondition {
    let number = Int(command.word10 & 0xFFFF)
    guard 1...queueLimit ~= number, submissions[number] == nil else { return .invalidQueue }
    let entries = Int(command.word10 >> 16) + 1
    guard 2...Self.maximumEntries ~= entries else { return .invalidQueueSize }
    guard command.word11 & 1 == 1, command.data1 & 4095 == 0 else { return .invalidField }
    let completionQueue = Int(command.word11 >> 16)
    guard 1...queueLimit ~= completionQueue, completions[completionQueue] != nil else {
      return .invalidCompletionQueue
    }
    completions[completionQueue]?.users += 1
    submissions[number] = SubmissionQueue(
      address: command.data1, entries: entries, completionQueue: completionQueue)
    write32(0, NVMeRegister.tail(UInt16(number), stride: 4))
    return .success
  }

  private func deleteSubmissionQueue(_ command: NVMeCommand) -> NVMeCondition {
    let number = Int(command.word10 & 0xFFFF)
    guard 1...Self.maximumQueues ~= number, let queue = submissions[number] else {
      return .invalidQueue
    }
    for command in held where command.queue == number {
      complete(command.identifier, number, .abortedByQueueDeletion)
    }
    held.removeAll { $0.queue == number }
    completions[queue.completionQueue]?.users -= 1
    submissions[number] = nil
    return .success
  }

  private func deleteCompletionQueue(_ command: NVMeCommand) -> NVMeCondition {
    let number = Int(command.word10 & 0xFFFF)
    guard 1...Self.maximumQueues ~= number, let queue = completions[number] else {
      return .invalidQueue
    }
    // Its submission queues go first.
    guard queue.users == 0 else { return NVMeCondition(rawValue: 0x10C) }
    completions[number] = nil
    return .success
  }

  private func feature(_ command: NVMeCommand, isSet: Bool) -> Outcome {
    switch NVMeFeature(rawValue: UInt8(truncatingIfNeeded: command.word10)) {
    case .queueCount:
      if isSet {
        let asked = max(command.word11 & 0xFFFF, command.word11 >> 16)
        queueLimit = min(Int(asked) + 1, settings.queueCount, Self.maximumQueues)
      }
      let granted = UInt32(queueLimit - 1)
      return .done(.success, result: granted << 16 | granted)
    case .asynchronousEvents:
      if isSet { namespaceEventsAreWanted = command.word11 >> 8 & 1 != 0 }
      return .done(.success, result: namespaceEventsAreWanted ? 1 << 8 : 0)
    case .writeCache: return .done(.success, result: 1)
    default: return .status(.invalidField)
    }
  }

  private func logPage(_ command: NVMeCommand) -> NVMeCondition {
    let count = Int((command.word10 >> 16) & 0xFFFF) * 4 + 4
    guard command.word10 & 0xFF == 4, count <= 4096 else { return .invalidLogPage }
    var answer: [UInt8] = []
    for id in changedNamespaces.prefix(1024) {
      answer += (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) }
    }
    changedNamespaces = []
    answer += [UInt8](repeating: 0, count: 4096 - answer.count)
    return transfer(Array(answer.prefix(count)), to: command)
  }

  private func abort(_ command: NVMeCommand) -> Outcome {
    statistics.aborts += 1
    let queue = Int(command.word10 & 0xFFFF)
    let identifier = UInt16(truncatingIfNeeded: command.word10 >> 16)
    guard !settings.refusesAborts,
      let index = held.firstIndex(where: { $0.queue == queue && $0.identifier == identifier })
    else { return .done(.success, result: 1) }
    held.remove(at: index)
    complete(identifier, queue, .abortRequested)
    return .done(.success, result: 0)
  }

  // MARK: - Events

  /// A namespace has another size.
  func namespaceChanged(_ id: UInt32) {
    guard namespaceEventsAreWanted else { return }
    // Told once until the log page is read.
    if changedNamespaces.isEmpty { pendingEvents.append(.namespaceChanged) }
    if !changedNamespaces.contains(id) { changedNamespaces.append(id) }
  }

  func tellEvents() {
    while !pendingEvents.isEmpty, !listeners.isEmpty {
      let event = pendingEvents.removeFirst()
      complete(listeners.removeFirst(), 0, .success, result: event.rawValue)
    }
  }
}
