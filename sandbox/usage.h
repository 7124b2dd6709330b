/* How full the disks of a running sandbox are, seen from inside it: that works for every kind of disk (image, folder,
 * tmpfs) and also for a sandbox that an earlier spawner has mounted. Needs root. */
#ifndef SANDBOX_USAGE_H
#define SANDBOX_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define USAGE_DATA "/data" /* where the persistent volume of a Space is */

/* Bytes and inodes; size 0: there is no such disk, or it has no limit of its own (plain folders). */
struct disk_usage {
	uint64_t used, size;
	uint64_t inodes_used, inodes;
};
/* The writable layer, and what is mounted at /data. */
struct usage {
	struct disk_usage top, data;
};
/* `init` is pid 1 inside, on the host. False when it cannot be told (it has ended). */
bool usage_of(pid_t init, struct usage *out);

#endif
