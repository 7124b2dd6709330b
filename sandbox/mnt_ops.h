/* Making mounts, behind one table: by descriptor (the mount API of Linux 5.2, and mount_setattr of 5.12), or by mount(2)
 * where a kernel or a container runtime's filter has not got that (ENOSYS, or EPERM to whom it is due).
 * SPACED_FORCE=mount_legacy forces the second, so that tests run both. Internal to the launcher.
 *
 * A mount is a descriptor here, not attached anywhere that matters until move(). `attr` are MOUNT_ATTR_* to be added, and
 * every function verifies that the mount has them. All run in a mount namespace of their own, and the legacy ones need
 * that namespace's /proc. 0 or a descriptor, or -1 with err. */
#ifndef SANDBOX_MNT_OPS_H
#define SANDBOX_MNT_OPS_H

#include <stdbool.h>

#include "base/err.h"

struct mnt_option {
	const char *key, *value; /* value NULL: a flag; key NULL: the end. No commas in either */
};

struct mnt_ops {
	const char *label;
	bool detached; /* mounts may be made in one mount namespace for another, and be shown with other ids */
	/* A tmpfs over "/" of our mount namespace. Our root stays what is below. To be called first. */
	int (*staging)(struct err *err);
	/* A copy of what is at `path` below `dir` ("": of `dir` itself), never through a symlink at its end. */
	int (*copy)(int dir, const char *path, unsigned attr, bool submounts, struct err *err);
	/* A new file system. Relative paths in its options are relative to the working folder. */
	int (*make)(const char *type, const struct mnt_option *options, unsigned attr, struct err *err);
	/* Attaches it to `target` below `dir` ("": to `dir` itself). The descriptor stays good. */
	int (*move)(int mount, int dir, const char *target, struct err *err);
};

extern const struct mnt_ops mnt_new_ops, mnt_legacy_ops;

/* The table for this host. Asked for by a process with CAP_SYS_ADMIN in its mount namespace: only there does EPERM mean a
 * filter. */
const struct mnt_ops *mnt_host(void);
/* Whether the mount at `fd` has these attributes. */
int mnt_verify(int fd, unsigned attr, struct err *err);

#endif
