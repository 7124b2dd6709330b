/* The skeleton: the tree under every sandbox's root overlay (/etc, the links /bin ..., /app, /home/user, empty folders),
 * built from the host by an allow-list: only what anybody on the host may read, no host names, no accounts, no secrets.
 * Its uids are ids inside. Kept as a volume "base-HASH" in its root/ folder, where HASH covers all that was copied;
 * a host that changed gets a new one, and sandboxes that run keep theirs. Called by the spawner's workers. */
#ifndef SANDBOX_SKELETON_H
#define SANDBOX_SKELETON_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/volume.h"

#define SKELETON_PREFIX "base-"
#define SKELETON_NAME 24

/* The name of the skeleton for the host as it is now. */
void skeleton_name(char out[SKELETON_NAME]);
/* Makes it when it is not there. */
int skeleton_ensure(const struct volumes *v, const char *name, struct err *err);
/* Fills an empty folder; for callers without volumes (the `sandbox` program). */
int skeleton_build(int dirfd, struct err *err);
/* Gives all of it from uid and gid N to `base` + N: for one range of ids, where it cannot be mounted idmapped. */
int skeleton_shift(int dirfd, uint32_t base, struct err *err);

#endif
