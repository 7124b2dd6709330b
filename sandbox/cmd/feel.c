/* See feel.h. */
#include "sandbox/cmd/feel.h"

#include <stdio.h>
#include <unistd.h>

#include "base/io.h"
#include "sandbox/limits.h"

#define SETTLE_MS 250 /* it may be the end, which has a message of its own */

static void say(void *ctx, enum limit_kind kind, const char *sentence)
{
	fprintf(stderr, "sandbox: %s\n", sentence);
}

static void arm(int fd)
{
	char skip[512];

	/* The kernel tells of the next change to who has read the last one. */
	if (pread(fd, skip, sizeof skip, 0) < 0)
		return;
}

void feel_begin(struct feel *f, const struct sandbox *box)
{
	*f = (struct feel){.box = box, .due = io_now_ms() + LIMIT_TICK_MS, .watch = xcalloc(1, sizeof *f->watch)};
	f->n = cgroup_host()->events(&box->cgroup, f->fds);
	for (int i = 0; i < f->n; i++)
		arm(f->fds[i]);
}

void feel_poll(const struct feel *f, struct pollfd *p)
{
	for (int i = 0; i < FEEL_FDS; i++)
		p[i] = (struct pollfd){.fd = i < f->n ? f->fds[i] : -1, .events = POLLPRI};
}

void feel_look(struct feel *f, const struct pollfd *p)
{
	struct cgroup_stats stats;
	struct usage use;
	struct err err;
	uint64_t now = io_now_ms();

	for (int i = 0; i < f->n; i++) {
		if (!p[i].revents)
			continue;
		arm(f->fds[i]);
		if (f->due > now + SETTLE_MS)
			f->due = now + SETTLE_MS;
	}
	if (now < f->due)
		return;
	f->due = now + LIMIT_TICK_MS;
	if (cgroup_host()->stats(&f->box->cgroup, &stats, &err) == 0)
		limits_look(f->watch, &stats, usage_of(f->box->init, &use) ? &use : NULL, now, true, say, NULL);
}

uint64_t feel_end(struct feel *f, char *used, size_t size)
{
	struct cgroup_stats stats = {0};
	struct err err;

	cgroup_host()->stats(&f->box->cgroup, &stats, &err);
	f->watch->told.oom_kills = stats.oom_kills; /* the caller's to tell */
	limits_look(f->watch, &stats, NULL, io_now_ms(), true, say, NULL);
	limits_memory(&stats, used, size);
	for (int i = 0; i < f->n; i++)
		close(f->fds[i]);
	free(f->watch);
	return stats.oom_kills;
}
