/* Descriptors that come with the start of the program, each with a name, as sd_listen_fds(3) describes it: LISTEN_FDS of
 * them from 3 on, named by LISTEN_FDNAMES, for the process LISTEN_PID. From systemd comes the public socket
 * (spaced.socket), from a daemon that makes way for a newer program in its own process all that must outlive it. */
#ifndef SPACED_ROLE_HANDED_H
#define SPACED_ROLE_HANDED_H

#include <stddef.h>

#include "base/err.h"

#define HANDED_MAX 100
#define HANDED_NAME 32 /* bytes, with the NUL */

struct handed {
	size_t n;
	struct handed_fd {
		char name[HANDED_NAME];
		int fd; /* -1: taken */
	} at[HANDED_MAX];
};

/* What was handed to this process, now close-on-exec, and no more in the environment. 0, also when it is nothing; -1 when it
 * is not as it should be. */
int handed_receive(struct handed *h, struct err *err);
/* The descriptor of that name, which is the caller's from then on; -1: none. */
int handed_take(struct handed *h, const char *name);
void handed_add(struct handed *h, const char *name, int fd); /* stays the caller's */
/* Becomes the program at `path` with these descriptors. Returns only when that fails, -1, with all as it was, but for
 * descriptors of others below HANDED_ABOVE. */
int handed_exec(const struct handed *h, const char *path, char **argv, struct err *err);
#define HANDED_ABOVE (3 + HANDED_MAX)

/* The pure part: `fds`, `names` as in the environment (NULL: not there). */
int handed_parse(struct handed *h, const char *fds, const char *names, struct err *err);

#endif
