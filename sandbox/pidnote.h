/* A process, noted in a file so that it is found again by a later daemon: by its number, and by when it was started and in
 * which boot, because numbers are used again. */
#ifndef SANDBOX_PIDNOTE_H
#define SANDBOX_PIDNOTE_H

#include <sys/types.h>

#include "base/err.h"

/* Writes `name` in `dirfd` (0600). */
int pidnote_write(int dirfd, const char *name, pid_t pid, struct err *err);
/* A pidfd of the process, if it is still there, and its number in *pid; else -1. */
int pidnote_find(int dirfd, const char *name, pid_t *pid);

#endif
