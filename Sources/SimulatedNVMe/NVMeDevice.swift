// SPDX-License-Identifier: Apache-2.0

import CLinux
import NVMeProtocol
import Platform
import SimulatedHost
import Synchronization
import SystemPackage
import VMBus

/// A simulated NVMe controller with its namespaces. One thread uses it: it looks at the registers, which
/// the driver writes into shared memory, and does what they say.
///
/// It is the protocol's second implementer, so it checks what it is told as a controller does, and moves
/// data only through the windows that it was given.
@safe
final class NVMeDevice {
  struct CompletionQueue {
    let address: UInt64
    let entries: Int
    let vector: Int?
    var tail = 0
    var phase: UInt16 = 1
    /// Entries that the driver has not been signalled for.
    var isUnsignalled = false
    /// Submission queues that complete here.
    var users = 0
  }

  struct SubmissionQueue {
    let address: UInt64
    let entries: Int
    let completionQueue: Int
    var head = 0
  }

  static let registerByteCount = 16384
  /// Queue pairs beside the admin queue, at most: their doorbells lie within the registers.
  static let maximumQueues = 64
  static let maximumEntries = 4096

  let registers: UnsafeMutableRawPointer
  private let memory: MappedMemory
  let barFile: MemoryFile
  var windows = DMAWindows()
  var interrupts: [EventBox] = []
  var configurationSpace = [UInt8](repeating: 0, count: 4096)
  let settings: NVMeSettings
  /// By their ids, from 1 on.
  let namespaces: [SimulatedNVMe.Namespace]

  // The controller's state; gone with a reset.
  var isEnabled = false
  var isShutDown = false
  /// By number; 0 is the admin queue.
  var submissions: [SubmissionQueue?]
  var completions: [CompletionQueue?]
  var queueLimit = NVMeDevice.maximumQueues
  /// Event commands that wait for an event.
  var listeners: [UInt16] = []
  var pendingEvents: [NVMeEvent] = []
  var namespaceEventsAreWanted = false
  var changedNamespaces: [UInt32] = []
  /// Commands that are never answered, until they are aborted.
  var held: [(queue: Int, identifier: UInt16)] = []

  var faults: [NVMeFault] = []
  var statistics = NVMeStatistics()
  var hostility: Hostility?

  init(
    _ settings: NVMeSettings, _ namespaces: [SimulatedNVMe.Namespace]
  ) throws(Errno) {
    self.settings = settings
    self.namespaces = namespaces
    let file = try MemoryFile(name: "nvme-bar", byteCount: Self.registerByteCount)
    memory = try file.map()
    unsafe registers = memory.start
    barFile = file
    submissions = Array(repeating: nil, count: Self.maximumQueues + 1)
    completions = Array(repeating: nil, count: Self.maximumQueues + 1)
    faults = settings.faults
    hostility = settings.hostileSeed.map { Hostility(seed: $0) }
    reset()
  }

  // MARK: - Registers. Safe: they lie within the mapping, which this keeps.

  func read32(_ offset: Int) -> UInt32 {
    unsafe UInt32(littleEndian: vmbus_read32(registers + offset))
  }
  func read64(_ offset: Int) -> UInt64 {
    unsafe UInt64(littleEndian: vmbus_read64(registers + offset))
  }
  func write32(_ value: UInt32, _ offset: Int) {
    unsafe vmbus_write32(registers + offset, value.littleEndian)
  }
  func write64(_ value: UInt64, _ offset: Int) {
    unsafe vmbus_write64(registers + offset, value.littleEndian)
  }

  /// As after power-on.
  func reset() {
    stop()
    unsafe registers.initializeMemory(as: UInt8.self, repeating: 0, count: Self.registerByteCount)
    // The largest queue, contiguous queues, seconds to become ready as the settings say, NVM commands.
    let entries = UInt64(Self.maximumEntries - 1)
    let timeout = UInt64(settings.readyHalfSeconds) << 24
    write64(entries | 1 << 16 | timeout | 1 << 37, NVMeRegister.capabilities)
    write32(0x0001_0400, NVMeRegister.version)
    configurationSpace[4] = 0
    configurationSpace[5] = 0
  }

  /// Forgets all queues. Nothing is under way then.
  func stop() {
    isEnabled = false
    isShutDown = false
    for index in submissions.indices {
      submissions[index] = nil
      completions[index] = nil
    }
    listeners = []
    held = []
    queueLimit = Self.maximumQueues
    namespaceEventsAreWanted = false
    // What a driver has rung is not to be taken for the next one's.
    unsafe (registers + NVMeRegister.doorbells).initializeMemory(
      as: UInt8.self, repeating: 0, count: Self.registerByteCount - NVMeRegister.doorbells)
  }

  var isBusMaster: Bool { configurationSpace[4] & 4 != 0 }

  // MARK: - Rounds

  /// Does what there is to do. Returns how many commands that were.
  func poll() -> Int {
    let configuration = NVMeConfiguration(rawValue: read32(NVMeRegister.configuration))
    var work = 0
    if configuration.isEnabled != isEnabled {
      if configuration.isEnabled { start(configuration) } else { halt() }
      work += 1
    }
    if configuration.isEnabled, configuration.shutdown != 0, !isShutDown {
      for namespace in namespaces { try? namespace.image.flush() }
      isShutDown = true
      write32(read32(NVMeRegister.status) | 2 << 2, NVMeRegister.status)
      work += 1
    }
    if hostility?.next(8) == 0 { beHostile() }
    guard isEnabled, isBusMaster else { return work }
    for number in submissions.indices where submissions[number] != nil {
      work += serve(number)
    }
    tellEvents()
    signal()
    return work
  }

  private func start(_ configuration: NVMeConfiguration) {
    isEnabled = true
    guard configuration.pageSize == 0, configuration.commandSet == 0,
      configuration.submissionEntrySize == 6, configuration.completionEntrySize == 4
    else { return fail() }
    if settings.neverReady { return }
    let attributes = read32(NVMeRegister.adminQueueAttributes)
    submissions[0] = SubmissionQueue(
      address: read64(NVMeRegister.adminSubmissionQueue), entries: Int(attributes & 0xFFF) + 1,
      completionQueue: 0)
    completions[0] = CompletionQueue(
      address: read64(NVMeRegister.adminCompletionQueue),
      entries: Int(attributes >> 16 & 0xFFF) + 1, vector: 0, users: 1)
    write32(NVMeControllerStatus.ready.rawValue, NVMeRegister.status)
  }

  private func halt() {
    stop()
    write32(0, NVMeRegister.status)
    statistics.resets += 1
  }

  /// Controller fatal status: only a reset helps.
  func fail() {
    submissions = submissions.map { _ in nil }
    write32(read32(NVMeRegister.status) | 2, NVMeRegister.status)
  }

  private func serve(_ number: Int) -> Int {
    var done = 0
    while done < 256, let queue = submissions[number] {
      let tail = Int(read32(NVMeRegister.tail(UInt16(number), stride: 4)))
      guard tail < queue.entries else {
        // A doorbell of no entry: an error event on a real one. Nothing is fetched.
        statistics.badDoorbells += 1
        return done
      }
      guard tail != queue.head, hasRoom(queue.completionQueue) else { return done }
      vmbus_after_register()
      let address = queue.address &+ UInt64(queue.head * NVMeCommand.byteCount)
      guard let bytes = windows.bytes(address, NVMeCommand.byteCount),
        let command = try? NVMeCommand(parsing: bytes)
      else {
        fail()
        return done
      }
      submissions[number]?.head = (queue.head + 1) % queue.entries
      done += 1
      statistics.commands += 1
      execute(command, number)
    }
    return done
  }

  private func hasRoom(_ number: Int) -> Bool {
    guard let queue = completions[number] else { return false }
    let head = Int(read32(NVMeRegister.head(UInt16(number), stride: 4)))
    return (queue.tail + 1) % queue.entries != head % queue.entries
  }

  private func execute(_ command: NVMeCommand, _ number: Int) {
    if number > 0, let fault = takeFault() {
      if perform(fault, command, number) { return }
    }
    let outcome = number == 0 ? administer(command) : move(command)
    switch outcome {
    case .done(let condition, let result):
      complete(command.identifier, number, condition, result: result)
    case .later: break
    }
  }

  enum Outcome {
    case done(NVMeCondition, result: UInt32)
    /// An event command, or one that is held.
    case later

    static func status(_ condition: NVMeCondition) -> Outcome { .done(condition, result: 0) }
  }

  /// Puts a completion into the queue of a submission queue, if it has room.
  func complete(
    _ identifier: UInt16, _ number: Int, _ condition: NVMeCondition, result: UInt32 = 0,
    queueNumber: UInt16? = nil
  ) {
    guard let submission = submissions[number], hasRoom(submission.completionQueue),
      let queue = completions[submission.completionQueue]
    else { return }
    var completion = NVMeCompletion()
    completion.result = result
    completion.head = UInt16(truncatingIfNeeded: submission.head)
    completion.queue = queueNumber ?? UInt16(number)
    completion.identifier = identifier
    completion.status = NVMeStatus(condition).field | queue.phase
    post(completion, submission.completionQueue)
  }

  func post(_ completion: NVMeCompletion, _ number: Int) {
    guard var queue = completions[number] else { return }
    let bytes = completion.wireBytes
    let address = queue.address &+ UInt64(queue.tail * NVMeCompletion.byteCount)
    unsafe windows.with(address, NVMeCompletion.byteCount, .write) { entry in
      guard let start = entry.baseAddress else { return }
      // The word with the phase tag last.
      unsafe entry.copyBytes(from: bytes[0..<8])
      let word = bytes[8..<16].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      unsafe (start + 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(
        word.littleEndian, ordering: .releasing)
    }
    queue.tail += 1
    if queue.tail == queue.entries {
      queue.tail = 0
      queue.phase ^= 1
    }
    queue.isUnsignalled = true
    completions[number] = queue
    statistics.completions += 1
  }

  private func signal() {
    for number in completions.indices {
      guard completions[number]?.isUnsignalled == true else { continue }
      completions[number]?.isUnsignalled = false
      if let vector = completions[number]?.vector { interrupt(vector) }
    }
  }

  func interrupt(_ vector: Int) {
    guard interrupts.indices.contains(vector) else { return }
    interrupts[vector].signal()
  }
}

/// What a device did, for tests and people.
public struct NVMeStatistics: Sendable, Equatable {
  public var commands: UInt64 = 0
  public var completions: UInt64 = 0
  /// Times that the controller was stopped by its register.
  public var resets: UInt64 = 0
  public var aborts: UInt64 = 0
  public var badDoorbells: UInt64 = 0
  /// Accesses to memory that the device was not given.
  public var refusedAccesses: UInt64 = 0

  public init() {}
}
