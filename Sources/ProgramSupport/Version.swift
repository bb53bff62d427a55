// SPDX-License-Identifier: Apache-2.0

/// What `--version` says, in all programs of the project.
public let projectVersion = "0.1.0"
