/* Volumes: the disks of Spaces. Each is a sparse ext4 image STATE/volumes/NAME.img of a fixed size, so that the kernel
 * enforces bytes and inodes (battery G4), attached to a loop device and mounted below STATE/volumes/.mnt only in the
 * caller's mount namespace (the spawner's private one). On a host without loop devices: a folder NAME.dir with the same
 * interface and no hard limit (SPACED_FORCE=volume_folders forces that).
 *
 * Volumes named data-* hold what nobody can make again: they have a journal, survive a loss of power, may grow, and their
 * root/ is the app's own (uid 1000). The others have none: they are flushed and then only read, or scratch.
 *
 * Inside a volume: root/ (0755) and work/, for the overlay. All of these calls may take long: run them in a worker.
 * Names are checked with sandbox_name_ok by the caller. Processes may race: a lock per image serialises mounting. */
#ifndef SANDBOX_VOLUME_H
#define SANDBOX_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define VOLUME_MIN_BYTES (1ULL << 20)
#define VOLUME_DATA "data-"
#define VOLUME_DATA_MIN_BYTES (16ULL << 20)
#define VOLUME_MAX_BYTES (1ULL << 42)

struct volumes {
	char *dir; /* STATE/volumes */
	int dirfd;
	bool images; /* else folders */
};

bool volume_loop_devices(void);
/* Makes STATE/volumes (0700) and removes what an interrupted volume_create left. */
int volumes_open(const char *state, struct volumes *v, struct err *err);
/* The same beside the spawner, whose volume_create may be under way: removes nothing. */
int volumes_join(const char *state, struct volumes *v, struct err *err);
void volumes_release(struct volumes *v);

bool volume_is_data(const char *name);
bool volume_exists(const struct volumes *v, const char *name);
int volume_create(const struct volumes *v, const char *name, uint64_t bytes, struct err *err); /* EEXIST */
/* A data volume of at least `bytes`: made when it is not there, grown when it is smaller; never made smaller. `used`: a
 * sandbox has it; then it grows while it is mounted, for which the caller needs CAP_SYS_RESOURCE, else EBUSY. */
int volume_ensure(const struct volumes *v, const char *name, uint64_t bytes, bool used, struct err *err);
/* Flushes, gives freed blocks back to the host, unmounts, renames; durable when it returns. EEXIST, ENOENT. */
int volume_rename(const struct volumes *v, const char *from, const char *to, struct err *err);
int volume_remove(const struct volumes *v, const char *name, struct err *err);
/* Mounts it unless it is already (a volume that was not unmounted cleanly is checked first); O_PATH descriptor or -1. */
int volume_mount(const struct volumes *v, const char *name, struct err *err);
/* EBUSY while somebody uses it in this namespace. 0 when it is not mounted. */
int volume_unmount(const struct volumes *v, const char *name, struct err *err);
/* Appends {str name, u64 bytes on disk} for each volume; returns their number. */
uint32_t volume_list(const struct volumes *v, struct buf *out);

#endif
