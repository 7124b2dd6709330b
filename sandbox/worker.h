/* Slow work in small forked processes, so that the spawner's one loop never waits: mkfs, syncfs, unmounting, waiting for a
 * group to be empty. A worker is a plain fork: it sees what the spawner sees (mount namespace, state) and returns one
 * result over a pipe. And programs with a fixed argument list, looked up in the system's own folders only. */
#ifndef SANDBOX_WORKER_H
#define SANDBOX_WORKER_H

#include "base/buf.h"
#include "base/err.h"

/* Runs in the child. Fills `result` (may stay empty) and returns 0, or -1 with `err`. */
typedef int (*worker_fn)(void *arg, struct buf *result, struct err *err);

/* Forks a worker. Returns the non-blocking end to read from (closed by the caller), or -1. The caller reads until the end
 * into a buf and hands that to worker_result(). Needs SIGCHLD ignored, else the caller has zombies. */
int worker_start(worker_fn fn, void *arg, struct err *err);
/* Reads what is there: 1 when the worker is through (`raw` is whole), 0 when more will come. */
int worker_read(int fd, struct buf *raw);
/* Unpacks: 0 with `result`, or -1 with the worker's error (one that died says so). */
int worker_result(const struct buf *raw, struct buf *result, struct err *err);
/* The same, waited for. */
int worker_run(worker_fn fn, void *arg, struct buf *result, struct err *err);

/* Runs a program (a bare name, looked up in /usr/sbin, /usr/bin, /sbin, /bin; PATH is not asked) with an empty
 * environment and waits. 0 when it exits with at most `max_status`; else -1 with its last line of output. */
int worker_exec(const char *const argv[], int max_status, struct err *err);
/* The same for a program that must exit with 0, with what it printed. */
int worker_output(const char *const argv[], struct buf *out, struct err *err);

#endif
