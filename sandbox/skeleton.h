/* The skeleton: the tree under every sandbox's root overlay (/etc, the links /bin ..., /app, /home/user, empty folders),
 * built from the root of a system by an allow-list: only what anybody there may read, no secrets; from the host also no host
 * names and no accounts. Its uids are ids inside. The host's is kept as a volume "skel-HASH" in its root/ folder, where HASH
 * covers all that was copied; a host that changed gets a new one, and sandboxes that run keep theirs. That of a base image is
 * part of the image (base.h). Called by the spawner's workers.
 *
 * `root` is a descriptor of the system's root, or SKELETON_HOST; what is inside cannot lead out of it. */
#ifndef SANDBOX_SKELETON_H
#define SANDBOX_SKELETON_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/volume.h"

#define SKELETON_PREFIX "skel-"
#define SKELETON_NAME 24
#define SKELETON_HOST (-1)

/* The name of the skeleton for that system as it is now. */
void skeleton_name(int root, char out[SKELETON_NAME]);
/* Makes the host's when it is not there. */
int skeleton_ensure(const struct volumes *v, const char *name, struct err *err);
/* Fills an empty folder; for callers without volumes (the `sandbox` program). */
int skeleton_build(int root, int dirfd, struct err *err);
/* Gives all of it from uid and gid N to `base` + N: for one range of ids, where it cannot be mounted idmapped. */
int skeleton_shift(int dirfd, uint32_t base, struct err *err);

#endif
