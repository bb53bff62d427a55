// SPDX-License-Identifier: Apache-2.0

#if THREAD_SANITIZER
  import CLinux

  /// `Mutex` once more, over a mutex of the C library.
  ///
  /// The standard library's one hands a contended lock over in the kernel, where ThreadSanitizer
  /// does not see it and reports a race for what is none. It knows the C library's.
  @safe
  public struct Lock<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    public init(_ initialValue: consuming sending Value) {
      unsafe mutex = .allocate(capacity: 1)
      unsafe pthread_mutex_init(mutex, nil)
      unsafe value = .allocate(capacity: 1)
      unsafe value.initialize(to: initialValue)
    }

    deinit {
      unsafe value.deinitialize(count: 1)
      unsafe value.deallocate()
      unsafe pthread_mutex_destroy(mutex)
      unsafe mutex.deallocate()
    }

    public borrowing func withLock<Result: ~Copyable, Failure: Error>(
      _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
      unsafe pthread_mutex_lock(mutex)
      defer { unsafe pthread_mutex_unlock(mutex) }
      return try unsafe body(&value.pointee)
    }
  }
#else
  public import Synchronization

  /// A lock around a value. In a build for ThreadSanitizer it is one that the sanitizer sees.
  public typealias Lock<Value: ~Copyable> = Mutex<Value>
#endif
