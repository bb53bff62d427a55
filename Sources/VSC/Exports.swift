// SPDX-License-Identifier: Apache-2.0

// An author imports VSC alone: the wire's values and the workers come with it.
@_exported public import Platform
@_exported public import VMBus
