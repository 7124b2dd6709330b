/* A command inside a running sandbox, next to its main process. Nobody enters: pid 1 of the sandbox, which stands behind
 * every wall already, forks the command, so it has the confinement of the main process by descent (namespaces, cgroups,
 * ids, capabilities, Landlock, seccomp, limits, environment), and dies and freezes with it. No privileged process is ever
 * inside, which is where CVE-2016-9962, CVE-2019-5736 (battery A11), CVE-2022-27650 (C6) and CVE-2024-21626 begin.
 *
 * The asker speaks frames (base/frame.h) with pid 1 over sandbox.exec. No descriptor goes in: the terminal or the pipes
 * are made inside, belong to the app's user, and their outer ends come out. */
#ifndef SANDBOX_EXEC_H
#define SANDBOX_EXEC_H

#include "base/frame.h"
#include "sandbox/spec.h"

#define EXEC_MAX 16 /* commands at a time in one sandbox */
#define EXEC_MAX_ARGS 1024
#define EXEC_MAX_BYTES (64U << 10) /* of a request */

/* Statuses of a command that never was one, as of env(1) */
enum { EXEC_CANNOT = 125, EXEC_NOT_EXECUTABLE = 126, EXEC_NOT_FOUND = 127 };

enum exec_message {
	/* to pid 1 */
	EXEC_RUN = 1, /* {exec_request}; id: the asker's number for it, not 0 */
	EXEC_SIGNAL,  /* {u32 signal} to the command's process group; id 0: to all commands */
	/* from pid 1 */
	EXEC_STARTED, /* {} fds: exec_ends(): the terminal's master; or stdin (to write), stdout, stderr (to read) */
	EXEC_FAILED,  /* {u32 errno, str message} */
	EXEC_ENDED,   /* {u32 status}: exit code, or 128+n for signal n */
};

struct exec_request {
	char **argv; /* NULL-ended; argv[0] is looked up in the PATH of the main process */
	char *cwd;   /* absolute, or NULL: that of the main process */
	bool tty;    /* with a terminal of its own, from the sandbox's devpts */
	uint32_t rows, cols;
	char *term; /* TERM, or NULL: as the main process; else the environment is that of the main process */
};

void exec_request_release(struct exec_request *q);
/* Checks itself after decoding. 0, or -1 with EBADMSG, EINVAL, E2BIG. */
int exec_request_check(const struct exec_request *q, struct err *err);
void exec_request_encode(const struct exec_request *q, struct buf *b);
int exec_request_decode(struct reader *r, struct exec_request *q, struct err *err);

/* How many descriptors come out, and that they are what they should be: a pseudo-terminal's master of a devpts, or pipes
 * with the right direction. What comes from inside is checked, whoever sent it (battery A6). */
int exec_ends(bool tty);
int exec_ends_check(bool tty, const int *fds, int n, struct err *err);

#endif
