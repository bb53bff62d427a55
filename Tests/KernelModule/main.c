// SPDX-License-Identifier: Apache-2.0
#include "module.h"

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  if (!strcmp(what, "interface")) return check_interface();
  if (!strcmp(what, "errors")) return check_errors();
  if (!strcmp(what, "data")) return check_data();
  if (!strcmp(what, "limits")) return check_limits();
  if (!strcmp(what, "idle")) return run_idle();
  if (!strcmp(what, "load") && count == 3) return run_load(words[2]);
  if (!strcmp(what, "fuzz") && count == 4)
    return fuzz(strtoull(words[2], NULL, 0), strtoull(words[3], NULL, 0));
  printf("Usage: %s interface|errors|data|limits|load kill|load device|idle|fuzz SEED COUNT\n", words[0]);
  return 2;
}
