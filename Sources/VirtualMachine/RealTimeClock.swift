// SPDX-License-Identifier: Apache-2.0

/// The battery-backed clock of a PC, at its two ports: it tells the time in UTC, and can't be set.
/// A kernel that finds none waits for seconds.
struct RealTimeClock {
  private enum Register {
    static let seconds: UInt8 = 0x00
    static let minutes: UInt8 = 0x02
    static let hours: UInt8 = 0x04
    static let weekday: UInt8 = 0x06
    static let day: UInt8 = 0x07
    static let month: UInt8 = 0x08
    static let year: UInt8 = 0x09
    static let statusA: UInt8 = 0x0A
    static let statusB: UInt8 = 0x0B
    static let statusC: UInt8 = 0x0C
    static let statusD: UInt8 = 0x0D
  }

  /// As ACPI tells the kernel where it is.
  static let century: UInt8 = 0x32

  private var register: UInt8 = 0

  /// The guest says which register it means.
  mutating func select(_ register: UInt8) { self.register = register & 0x7F }

  /// The guest reads the register.
  ///
  /// - Parameter time: seconds since 1970.
  func read(at time: UInt64) -> UInt8 {
    let (year, month, day) = Self.date(ofDay: time / 86400)
    let value: UInt64
    switch register {
    case Register.seconds: value = time % 60
    case Register.minutes: value = time / 60 % 60
    case Register.hours: value = time / 3600 % 24
    // 1 is Sunday; the first day of 1970 was a Thursday.
    case Register.weekday: value = (time / 86400 + 4) % 7 + 1
    case Register.day: value = day
    case Register.month: value = month
    case Register.year: value = year % 100
    case Self.century: value = year / 100 % 100
    // It counts, and is not about to change.
    case Register.statusA: return 0x26
    // Hours up to 24, decimal digits.
    case Register.statusB: return 0x02
    case Register.statusC: return 0
    // The battery is good.
    case Register.statusD: return 0x80
    default: return 0
    }
    return UInt8(truncatingIfNeeded: (value / 10) << 4 | value % 10)
  }

  /// The date of a day since the first one of 1970, in the Gregorian calendar.
  static func date(ofDay day: UInt64) -> (year: UInt64, month: UInt64, day: UInt64) {
    // Counted from the 1st of March of the year 0, so that the leap day is the last one of a year;
    // 400 years have 146097 days.
    let days = day + 719_468
    let era = days / 146_097
    let ofEra = days % 146_097
    let year = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365
    let ofYear = ofEra - (365 * year + year / 4 - year / 100)
    // Months from March on have 31, 30, 31, 30, 31 days, again and again.
    let month = (5 * ofYear + 2) / 153
    let number = month < 10 ? month + 3 : month - 9
    return (
      era * 400 + year + (number <= 2 ? 1 : 0), number, ofYear - (153 * month + 2) / 5 + 1
    )
  }
}
