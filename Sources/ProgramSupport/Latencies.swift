// SPDX-License-Identifier: Apache-2.0

/// Counts durations in buckets whose width is at most 1/64 of their value, in memory of its own:
/// recording allocates nothing.
@safe
public struct Latencies: ~Copyable {
  @usableFromInline static let subBuckets = 64
  private static let bucketCount = 64 * (64 - 5)

  @usableFromInline let buckets: UnsafeMutablePointer<UInt64>
  @inlinable public var count: UInt64 { counted }
  @inlinable public var minimum: UInt64 { minimumSeen }
  @inlinable public var maximum: UInt64 { maximumSeen }
  @usableFromInline var counted: UInt64 = 0
  @usableFromInline var sum: UInt64 = 0
  @usableFromInline var minimumSeen = UInt64.max
  @usableFromInline var maximumSeen: UInt64 = 0

  public init() {
    unsafe buckets = .allocate(capacity: Self.bucketCount)
    unsafe buckets.initialize(repeating: 0, count: Self.bucketCount)
  }

  @inlinable
  deinit { unsafe buckets.deallocate() }

  /// What was counted, for another thread.
  public struct Record: Sendable {
    fileprivate var buckets: [UInt64]
    fileprivate var count, sum, minimum, maximum: UInt64
  }

  public var record: Record {
    Record(
      buckets: (0..<Self.bucketCount).map { unsafe buckets[$0] }, count: count, sum: sum,
      minimum: minimum, maximum: maximum)
  }

  public mutating func add(_ record: Record) {
    for (bucket, count) in record.buckets.enumerated() { unsafe buckets[bucket] &+= count }
    counted &+= record.count
    sum &+= record.sum
    minimumSeen = min(minimum, record.minimum)
    maximumSeen = max(maximum, record.maximum)
  }

  /// Below 128 each value has its bucket; above, the highest seven bits choose it.
  @inlinable
  static func bucket(_ value: UInt64) -> Int {
    let shift = max(57 - value.leadingZeroBitCount, 0)
    return shift &* subBuckets &+ Int(truncatingIfNeeded: value >> UInt64(shift))
  }

  /// The middle of a bucket.
  static func value(_ bucket: Int) -> UInt64 {
    guard bucket >= 2 * subBuckets else { return UInt64(bucket) }
    let shift = UInt64(bucket / subBuckets - 1)
    let lowest = UInt64(bucket % subBuckets + subBuckets) << shift
    return lowest + (1 << shift) / 2
  }

  @inlinable
  public mutating func record(_ nanoseconds: UInt64) {
    // Safe: a shift of at most 57 and seven bits stay below the capacity.
    unsafe buckets[Self.bucket(nanoseconds)] &+= 1
    counted &+= 1
    sum &+= nanoseconds
    minimumSeen = min(minimumSeen, nanoseconds)
    maximumSeen = max(maximumSeen, nanoseconds)
  }

  public var mean: Double { count == 0 ? 0 : Double(sum) / Double(count) }

  /// The duration that this share of all stays within; 0 when nothing was recorded.
  public func percentile(_ share: Double) -> Double {
    let rank = UInt64((Double(count) * share).rounded(.up))
    var seen: UInt64 = 0
    for bucket in 0..<Self.bucketCount {
      unsafe seen += buckets[bucket]
      if seen >= rank, seen > 0 { return Double(min(Self.value(bucket), maximum)) }
    }
    return Double(maximum)
  }
}
