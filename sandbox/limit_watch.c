/* See instance.h: hears or looks when a running sandbox feels a limit, and tells control (SPAWN_LIMIT). What the kernel
 * notifies of (v2: a kill for memory, a refused fork; v1: the latter) is looked at a moment later, for it may be the end of
 * the sandbox, which is told by another event; the rest at each tick of upkeep.c. What is said and when: limits.c. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "sandbox/instance.h"

#define SETTLE_MS 250

static void say(void *ctx, enum limit_kind kind, const char *sentence)
{
	const struct instance *i = ctx;
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, i->info.name);
	put_u8(&b, (uint8_t)kind);
	put_str(&b, sentence);
	spawn_event(i->s, SPAWN_LIMIT, &b);
}

void instance_limits_look(struct instance *i, uint64_t now)
{
	struct err err = ERR_INIT;
	const struct cgroup *group = instance_group(i, &err);
	struct cgroup_stats stats;
	struct usage use;

	i->limits.look_at = 0;
	if (!group || cgroup_host()->stats(group, &stats, &err) < 0) {
		log_warn("%s", err.msg);
		return;
	}
	limits_look(&i->limits.watch, &stats, usage_of(i->init, &use) ? &use : NULL, now, i->limits.fresh, say, i);
}

/* Level-triggered until it is read; then once for each change. */
static void heard(struct instance *i, struct source *src)
{
	char skip[512];
	struct err err = ERR_INIT;
	struct cgroup_stats stats;
	const struct cgroup *group = instance_group(i, &err);

	if (pread(src->fd, skip, sizeof skip, 0) < 0) {
		spawn_unwatch(i->s, src);
		return;
	}
	/* When, to the moment: what ends now ends because of it. */
	if (group && cgroup_host()->stats(group, &stats, &err) == 0 && stats.oom_kills > i->limits.watch.oom_kills) {
		i->limits.watch.oom_at = io_now_ms();
		i->limits.watch.oom_kills = stats.oom_kills;
	}
	if (!i->limits.look_at)
		i->limits.look_at = io_now_ms() + SETTLE_MS;
}

static void first_ready(struct source *src, uint32_t events)
{
	heard(container_of(src, struct instance, limits.events[0]), src);
}

static void second_ready(struct source *src, uint32_t events)
{
	heard(container_of(src, struct instance, limits.events[1]), src);
}

void instance_limits_watch(struct instance *i, bool fresh)
{
	static void (*const ready[CGROUP_EVENTS])(struct source *, uint32_t) = {first_ready, second_ready};
	struct err err = ERR_INIT;
	const struct cgroup *group = instance_group(i, &err);
	int fds[CGROUP_EVENTS];

	i->limits.fresh = fresh;
	if (!group) {
		log_warn("%s", err.msg);
		return;
	}
	i->limits.n = cgroup_host()->events(group, fds);
	for (int k = 0; k < i->limits.n; k++) {
		char skip[512];

		i->limits.events[k] = (struct source){fds[k], ready[k]};
		/* read once: only then the kernel tells */
		if (pread(fds[k], skip, sizeof skip, 0) < 0 || spawn_watch(i->s, &i->limits.events[k], EPOLLPRI) < 0)
			log_warn("watch the limits of %s: %m", i->info.name);
	}
	instance_limits_look(i, io_now_ms());
}

void instance_limits_unwatch(struct instance *i)
{
	for (int k = 0; k < i->limits.n; k++) {
		spawn_unwatch(i->s, &i->limits.events[k]);
		close(i->limits.events[k].fd);
	}
	i->limits.n = 0;
	i->limits.look_at = 0;
}

void instance_limits_last(struct instance *i, const struct cgroup_stats *stats)
{
	struct limit_watch *w = &i->limits.watch;

	w->told.oom_kills = stats->oom_kills;
	limits_look(w, stats, NULL, io_now_ms(), i->limits.fresh, say, i);
}

uint64_t instance_limits_due(struct instance *i, uint64_t now)
{
	if (i->limits.look_at && now >= i->limits.look_at)
		instance_limits_look(i, now);
	return i->limits.look_at;
}
