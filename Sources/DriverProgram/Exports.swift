// SPDX-License-Identifier: Apache-2.0

// What every program has, a driver's too: an author imports one module.
@_exported public import ProgramSupport
