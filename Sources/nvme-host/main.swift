// SPDX-License-Identifier: Apache-2.0

import ProgramSupport

await DeviceProgram.runProgram()
