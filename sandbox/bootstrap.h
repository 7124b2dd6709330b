/* Where the programs that install a Debian tree run, and with them the packages' maintainer scripts: user, mount, pid, ipc
 * and uts namespaces of their own in which root is an id of a range that nothing else on the host has. They see the host's
 * files as any stranger would, an own /tmp, and the tree as BOOTSTRAP_TREE, idmapped, so that ids on disk are ids inside. They
 * keep the host's network: the mirror may be on it. Not the sandbox of apps, because they have to mount and chroot; but less
 * than what apt gives the same scripts on the host. Root only. Called by `spacectl base create`. */
#ifndef SANDBOX_BOOTSTRAP_H
#define SANDBOX_BOOTSTRAP_H

#include "base/err.h"

#define BOOTSTRAP_TREE "/mnt" /* where the tree is, for the programs */

struct bootstrap_file { /* put into the own /tmp; NULL name ends a list */
	const char *name;
	const char *text;
};

struct bootstrap {
	int tree; /* an open folder on a file system that can be idmapped */
	const struct bootstrap_file *files;
	const char *const *const *steps; /* argument lists, run one after the other until one fails; NULL-ended */
	/* Each line of output. */
	void (*line)(void *ctx, const char *line);
	void *ctx;
	const volatile int
	    *stop; /* becomes not 0 (a signal): everything inside is killed, and the run fails with EINTR */
};

/* Waits until all is done and nothing inside runs any more. When the caller dies, everything inside dies. */
int bootstrap_run(const struct bootstrap *b, struct err *err);

#endif
