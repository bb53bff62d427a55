// SPDX-License-Identifier: Apache-2.0

import ProgramSupport

await ParavisorProgram.runProgram()
