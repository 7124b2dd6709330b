/* What `sandbox run` says on stderr while the command runs: which limit it felt (sandbox/limits.h). */
#ifndef SANDBOX_CMD_FEEL_H
#define SANDBOX_CMD_FEEL_H

#include <poll.h>

#include "sandbox/sandbox.h"

#define FEEL_FDS CGROUP_EVENTS

struct feel {
	const struct sandbox *box;
	int fds[FEEL_FDS], n;
	uint64_t due; /* next look, CLOCK_MONOTONIC ms */
	struct limit_watch *watch;
};
void feel_begin(struct feel *f, const struct sandbox *box);
/* Fills FEEL_FDS entries for poll(2). */
void feel_poll(const struct feel *f, struct pollfd *p);
/* After it: looks when it is time or the kernel has told of something. */
void feel_look(struct feel *f, const struct pollfd *p);
/* After the end: how many processes the memory limit has killed, and "used 512 MiB of 512 MiB". */
uint64_t feel_end(struct feel *f, char *used, size_t size);

#endif
