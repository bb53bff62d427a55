// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
public import Synchronization
import VSC

/// What the queues of a device tell those who are on other threads, and are asked by them.
final class NetworkLife: Sendable {
  /// The protocol is agreed on: subchannels can be opened.
  let agreed = Promise<Result<NetworkAgreement, NetworkError>>()
  let ready = Promise<Result<Void, NetworkError>>()
  private let events: @Sendable (NetworkEvent) -> Void
  private let state: Lock<State>

  private struct State {
    var information: NetworkInformation
    var reason: NetworkError?
    var waiting: [Promise<NetworkError>] = []
    var whenEnded: [@Sendable (NetworkError) -> Void] = []
    var mailboxes: [NetworkMailbox] = []
  }

  init(_ information: NetworkInformation, events: @escaping @Sendable (NetworkEvent) -> Void) {
    self.events = events
    state = Lock(State(information: information))
  }

  var information: NetworkInformation { state.withLock { $0.information } }
  var mailboxes: [NetworkMailbox] { state.withLock { $0.mailboxes } }

  func update(_ change: (inout NetworkInformation) -> Void) {
    state.withLock { change(&$0.information) }
  }

  func add(_ mailbox: NetworkMailbox) { state.withLock { $0.mailboxes.append(mailbox) } }

  func tell(_ event: NetworkEvent) { events(event) }

  // MARK: - The end

  var endReason: NetworkError? { state.withLock { $0.reason } }

  /// `body` is called once, when all is over, or at once.
  func whenEnded(_ body: @escaping @Sendable (NetworkError) -> Void) {
    let reason = state.withLock { state in
      if state.reason == nil { state.whenEnded.append(body) }
      return state.reason
    }
    if let reason { body(reason) }
  }

  /// A queue is over, and with it the device. The first reason stays.
  func end(_ error: NetworkError) {
    let (isFirst, waiting, bodies, mailboxes) = state.withLock { state in
      let isFirst = state.reason == nil
      state.reason = state.reason ?? error
      let result = (isFirst, state.waiting, state.whenEnded, state.mailboxes)
      state.waiting = []
      state.whenEnded = []
      return result
    }
    guard isFirst else { return }
    agreed.keep(.failure(error))
    ready.keep(.failure(error))
    for mailbox in mailboxes { mailbox.put(.end) }
    for body in bodies { body(error) }
    events(.ended(error))
    for promise in waiting { promise.keep(error) }
  }

  func waitUntilEnded() async -> NetworkError {
    let promise = Promise<NetworkError>()
    let reason = state.withLock { state in
      if state.reason == nil { state.waiting.append(promise) }
      return state.reason
    }
    if let reason { return reason }
    return await withTaskCancellationHandler {
      await promise.value()
    } onCancel: {
      promise.keep(.cancelled)
    }
  }
}

/// What other threads ask of a queue.
final class NetworkMailbox: Sendable {
  enum Request: Sendable {
    case statistics(Promise<NetworkQueueStatistics?>)
    /// Of the primary queue: so many queues there are.
    case opened(queueCount: Int)
    case set(OID, [UInt8], Promise<NetworkError?>)
    case switchDataPath(NVSPDataPath, Promise<NetworkError?>)
    /// What the host does from now on.
    case offloads(NetworkOffloads)
    case end
  }

  private struct State {
    var requests: [Request] = []
    var isClosed = false
  }

  let worker: Worker
  /// Set while there are requests: a queue looks at this only.
  let flag: MailFlag
  private let state = Lock(State())

  init(_ worker: Worker) {
    self.worker = worker
    flag = MailFlag()
  }

  func put(_ request: Request) {
    let isClosed = state.withLock { state in
      if !state.isClosed { state.requests.append(request) }
      return state.isClosed
    }
    if isClosed { return Self.refuse(request) }
    flag.raise()
    // Wakes the worker, which polls.
    worker.post {}
  }

  /// - Parameter last: nothing is taken any more after this call.
  func take(last: Bool = false) -> [Request] {
    flag.lower()
    return state.withLock { state in
      let requests = state.requests
      state.requests = []
      state.isClosed = state.isClosed || last
      return requests
    }
  }

  /// The queue is over: nobody may wait for ever.
  func close(_ error: NetworkError) {
    for request in take(last: true) { Self.refuse(request, error) }
  }

  private static func refuse(
    _ request: Request, _ error: NetworkError = .channel(.ended(.closed))
  ) {
    switch request {
    case .statistics(let promise): promise.keep(nil)
    case .set(_, _, let promise), .switchDataPath(_, let promise): promise.keep(error)
    case .opened, .offloads, .end: break
    }
  }
}

/// A flag that one thread looks at for each burst, without counting references.
@safe
@usableFromInline
final class MailFlag: @unchecked Sendable {
  // All accesses are atomic.
  @usableFromInline let word: UnsafeMutablePointer<Atomic<UInt32>>

  init() {
    unsafe word = .allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(0))
  }

  deinit { unsafe word.deallocate() }

  @inlinable var isRaised: Bool { unsafe word.pointee.load(ordering: .relaxed) != 0 }

  func raise() { unsafe word.pointee.store(1, ordering: .sequentiallyConsistent) }
  func lower() { unsafe word.pointee.store(0, ordering: .sequentiallyConsistent) }
}
