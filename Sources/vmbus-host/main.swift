// SPDX-License-Identifier: Apache-2.0

import DriverProgram

await HostProgram.runProgram()
