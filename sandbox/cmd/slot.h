/* The number of one `sandbox run`: what it makes on the host (ids, addresses, cgroup, a copy in the making) is named after it.
 * Who is killed leaves such things behind; the next run with that number finds and removes them, so they never pile up. */
#ifndef SANDBOX_CMD_SLOT_H
#define SANDBOX_CMD_SLOT_H

#include "base/err.h"
#include "sandbox/spec.h"

#define SLOTS 4096 /* runs at once */

/* Takes the lowest free number: STATE/slots/N is locked until our process ends. `name` gets the name of the sandbox, which its
 * cgroup has too; `tag` stands in it for the folder, as other folders have slots of their own. A group of that name that
 * a killed run has left is gone. The number, or -1 with err. */
int slot_take(const char *state, const char *tag, char name[SANDBOX_NAME_MAX + 1], struct err *err);

#endif
