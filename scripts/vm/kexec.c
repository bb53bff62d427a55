// SPDX-License-Identifier: Apache-2.0
//
// kexec KERNEL INITRD COMMAND-LINE: starts another kernel in place of the one that runs. For guests of the
// test bed: Debian's package would change how the machine reboots that it is installed on.

#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc != 4) return 64;
  int kernel = open(argv[1], O_RDONLY);
  int initrd = open(argv[2], O_RDONLY);
  if (kernel < 0 || initrd < 0 ||
      syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0UL)) {
    perror("the kernel could not be loaded");
    return 1;
  }
  syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
  perror("the kernel could not be started");
  return 1;
}
