/* See instance.h: freezing a sandbox within the spawner's loop. No process is made and nothing waits longer than
 * the first look, which gives the tasks a moment on v2: most are frozen then. For others the loop looks each millisecond; v1 has no
 * notification, and v2's comes up to 10 ms late. A thaw wins over a freeze at any time. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "sandbox/instance.h"

#define FREEZE_MS 2000
#define LOOK_MS 1

void instance_freeze_end(struct instance *i, const struct err *err)
{
	uint32_t id = i->freezing.id;

	if (i->freezing.events.fd >= 0) {
		spawn_unwatch(i->s, &i->freezing.events);
		close(i->freezing.events.fd);
		i->freezing.events.fd = -1;
	}
	i->freezing.id = 0;
	i->freezing.until = i->freezing.look = 0;
	if (!id)
		return;
	if (err)
		spawn_error(i->s, id, err);
	else
		spawn_ok(i->s, id, NULL);
}

static bool look(struct instance *i)
{
	if (!cgroup_host()->frozen(&i->group, i->freezing.events.fd, i->freezing.tries++))
		return false;
	instance_freeze_end(i, NULL);
	return true;
}

static void events_ready(struct source *src, uint32_t events)
{
	look(container_of(src, struct instance, freezing.events));
}

int instance_freeze(struct instance *i, uint32_t id, struct err *err)
{
	const struct cgroup *group = instance_group(i, err);
	int events;

	if (i->freezing.id)
		return err_set(err, EALREADY, "sandbox %s is being frozen", i->info.name);
	if (!group || cgroup_host()->freeze_begin(group, &events, err) < 0)
		return -1;
	i->freezing.id = id;
	i->freezing.tries = 0;
	i->freezing.until = io_now_ms() + FREEZE_MS;
	i->freezing.events = (struct source){events, events_ready};
	/* Watched before it is looked at: what changes in between is not missed. */
	if (events >= 0 && spawn_watch(i->s, &i->freezing.events, EPOLLPRI) < 0)
		log_error("watch the group of %s: %m", i->info.name);
	if (!look(i))
		i->freezing.look = io_now_ms() + LOOK_MS;
	return 0;
}

int instance_thaw(struct instance *i, struct err *err)
{
	const struct cgroup *group = instance_group(i, err);
	struct err cancelled;

	if (!group || cgroup_host()->thaw(group, err) < 0)
		return -1;
	err_set(&cancelled, ECANCELED, "freeze of %s", i->info.name);
	instance_freeze_end(i, &cancelled);
	return 0;
}

static int page_out(void *arg, struct buf *result, struct err *err)
{
	return cgroup_host()->page_out(arg, err);
}

static void paged_out(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	uint32_t id = (uint32_t)(uintptr_t)ctx;

	if (err)
		spawn_error(s, id, err);
	else
		spawn_ok(s, id, NULL);
}

int instance_page_out(struct instance *i, uint32_t id, struct err *err)
{
	const struct cgroup *group = instance_group(i, err);

	if (!group)
		return -1;
	if (!cgroup_host()->frozen(group, -1, 0))
		return err_set(err, ECANCELED, "page out %s: it is not frozen", i->info.name);
	return spawn_job(i->s, page_out, (void *)(uintptr_t)group, paged_out, (void *)(uintptr_t)id, NULL, err);
}

void instance_settle(struct instance *i)
{
	struct err err = ERR_INIT;
	const struct cgroup *group = instance_group(i, &err);
	int events = -1;

	if (group && !cgroup_host()->frozen(group, events, 0) && cgroup_host()->thaw(group, &err) == 0)
		return;
	if (err.code)
		log_warn("%s", err.msg);
}

uint64_t instance_freeze_due(struct instance *i, uint64_t now)
{
	struct err err;

	if (!i->freezing.id)
		return 0;
	if (i->freezing.look && now >= i->freezing.look) {
		if (look(i))
			return 0;
		i->freezing.look = now + LOOK_MS;
	}
	if (now >= i->freezing.until) {
		struct err thaw_err = ERR_INIT;

		err_set(&err, ETIMEDOUT, "freeze of %s: not frozen after %d ms", i->info.name, FREEZE_MS);
		/* Rolled back, or it would be stuck half frozen (runc #2791, #5325, battery I2). */
		if (cgroup_host()->thaw(&i->group, &thaw_err) < 0)
			log_error("%s", thaw_err.msg);
		instance_freeze_end(i, &err);
		return 0;
	}
	return i->freezing.look ? i->freezing.look : i->freezing.until;
}
