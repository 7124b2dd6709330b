/* How a role of the daemon gives up what it does not need, before the first byte from the network: its user, its
 * capabilities, its view of the file system (Landlock), its system calls (seccomp). The shape is OpenBSD's
 * pledge/unveil: a role states its promises in one line at the top of its main. */
#ifndef BASE_CONFINE_H
#define BASE_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

enum promise {
	PROMISE_BASE = 0,	    /* memory, time, signals on itself, read/write/poll on what is open, threads */
	PROMISE_FILES = 1 << 0,	    /* open, create, rename, remove (where Landlock lets it) */
	PROMISE_INET = 1 << 1,	    /* socket/connect AF_INET, AF_INET6 */
	PROMISE_UNIX = 1 << 2,	    /* socket/connect/accept AF_UNIX */
	PROMISE_EXEC = 1 << 3,	    /* fork and exec */
	PROMISE_NET_ADMIN = 1 << 4, /* CAP_NET_ADMIN is kept: requests over netlink sockets that are open */
};

struct confine_path {
	const char *path; /* one that does not exist is skipped */
	bool write;
	bool exec;
};

/* Root only, no-op otherwise: leaves all groups, takes uid and gid, checks that there is no way back. Nothing for 0 and 0:
 * root of a user namespace in which there is no other id (confine_syscalls() then takes its capabilities). */
int confine_user(uid_t uid, gid_t gid, struct err *err);
/* Landlock: only `paths` (ended by .path == NULL) stay reachable. Without Landlock in the kernel: 0 and a log line.
 * Best effort on the ABI; sets no_new_privs. */
int confine_files(const struct confine_path *paths, struct err *err);
/* No capabilities in any set (but see PROMISE_NET_ADMIN), no_new_privs, not dumpable, then the allow-list for `promises` (a mask of enum promise).
 * Anything else fails with EPERM, unknown numbers with ENOSYS. PROMISE_EXEC: children inherit it all. */
int confine_syscalls(unsigned promises, struct err *err);

#endif
