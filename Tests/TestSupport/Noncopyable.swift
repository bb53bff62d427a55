// SPDX-License-Identifier: Apache-2.0

public import Testing

// The macros of the testing library copy what they look at; these are for values that can't be.

public func expectNone<Value: ~Copyable>(
  _ value: borrowing Value?, sourceLocation: SourceLocation = #_sourceLocation
) {
  switch value {
  case .none: break
  case .some: Issue.record("there is a value", sourceLocation: sourceLocation)
  }
}

public func expectSome<Value: ~Copyable>(
  _ value: borrowing Value?, sourceLocation: SourceLocation = #_sourceLocation
) {
  switch value {
  case .some: break
  case .none: Issue.record("there is no value", sourceLocation: sourceLocation)
  }
}

public struct NoValue: Error {
  public init() {}
}

public func unwrap<Value: ~Copyable>(_ value: consuming Value?) throws -> Value {
  switch consume value {
  case .some(let value): return value
  case .none: throw NoValue()
  }
}
