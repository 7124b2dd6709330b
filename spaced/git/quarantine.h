/* Where an incoming pack stays until it is accepted: a folder beside the object store, on the same file system. Its owner
 * holds a lock on it; one without an owner belongs to a killed push and is removed by the next. Used by the unpack role. */
#ifndef SPACED_GIT_QUARANTINE_H
#define SPACED_GIT_QUARANTINE_H

#include "base/err.h"

struct quarantine {
	char name[48];
	int fd; /* the folder, locked */
};
#define QUARANTINE_INIT ((struct quarantine){.fd = -1})

/* Makes one, after clearing what killed pushes left. */
int quarantine_open(struct quarantine *q, int repo_fd, struct err *err);
void quarantine_remove(struct quarantine *q, int repo_fd);
/* Moves pack-{name}.pack and .idx into the object store, durably: when this returns, the objects survive a power cut.
 * The repository's lock is held, and marked meanwhile. */
int quarantine_accept(struct quarantine *q, int repo_fd, int lock_fd, const char *name, struct err *err);
/* Removes packs without index: their owner was killed while it held the lock. */
void quarantine_sweep_packs(int repo_fd);

#endif
