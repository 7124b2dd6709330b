/* What the spawner does beside its verbs on sandboxes: volumes by way of workers, the base, the pool of network namespaces,
 * and what is looked after every ten seconds. See instance.h. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/ids.h"
#include "sandbox/instance.h"
#include "sandbox/shells.h"

#define TICK_MS LIMIT_TICK_MS
#define IDLE_UNMOUNT_MS 30000
#define SKELETON_CHECK_MS 60000

/* -- volumes -------------------------------------------------------------------------------------------------------------- */

bool spawn_volume_used(struct spawn *s, const char *name, bool write)
{
	struct instance *i, *tmp;

	HASH_ITER(hh, s->instances, i, tmp)
	for (uint32_t k = 0; i->state != EXITED && k < i->info.nuses; k++)
		if (strcmp(i->info.uses[k].name, name) == 0 && (!write || i->info.uses[k].write))
			return true;
	return false;
}

bool spawn_volume_under_work(struct spawn *s, const char *name)
{
	for (struct job *j = s->jobs; j; j = j->next)
		for (int k = 0; k < 2; k++)
			if (j->volumes[k] && strcmp(j->volumes[k], name) == 0)
				return true;
	return false;
}

bool spawn_volume_upkept(struct spawn *s, const char *name)
{
	for (struct job *j = s->jobs; j; j = j->next)
		if (j->upkeep && j->volumes[0] && strcmp(j->volumes[0], name) == 0)
			return true;
	return false;
}

void spawn_note_mounted(struct spawn *s, const char *name)
{
	for (size_t k = 0; k < s->nmounted; k++) {
		if (strcmp(s->mounted[k].name, name) == 0) {
			s->mounted[k].idle_since = 0; /* it may be idle again before the next tick */
			return;
		}
	}
	s->mounted = xreallocarray(s->mounted, s->nmounted + 1, sizeof *s->mounted);
	snprintf(s->mounted[s->nmounted].name, sizeof s->mounted[0].name, "%s", name);
	s->mounted[s->nmounted++].idle_since = 0;
}

static void forget_mounted(struct spawn *s, const char *name)
{
	for (size_t k = 0; k < s->nmounted; k++)
		if (strcmp(s->mounted[k].name, name) == 0)
			s->mounted[k--] = s->mounted[--s->nmounted];
}

static int volume_work(void *arg, struct buf *result, struct err *err)
{
	const struct volume_call *c = arg;
	const struct volumes *v = &c->s->volumes;

	switch (c->verb) {
	case SPAWN_VOLUME_CREATE:
		return volume_create(v, c->name, c->bytes, err);
	case SPAWN_VOLUME_RENAME:
		return volume_rename(v, c->name, c->to, err);
	case SPAWN_VOLUME_REMOVE:
		return volume_remove(v, c->name, err);
	case SPAWN_VOLUME_ENSURE:
		return volume_ensure(v, c->name, c->bytes, c->used, err);
	case SPAWN_VOLUME_LIST:
		volume_list(v, result);
		return 0;
	case SPAWN_BASE_REMOVE:
		return base_remove(v, c->s->state, c->name + strlen(BASE_PREFIX), err);
	default:
		return volume_unmount(v, c->name, err);
	}
}

void upkeep_volume_done(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	cleanup_free struct volume_call *c = ctx;

	if (!err && (c->verb == SPAWN_VOLUME_RENAME || c->verb == SPAWN_VOLUME_REMOVE || c->verb == SPAWN_BASE_REMOVE))
		forget_mounted(s, c->name);
	if (c->verb == SPAWN_VOLUME_ENSURE) /* it may be mounted for that; else it is found out */
		spawn_note_mounted(s, c->name);
	if (c->id == 0) {
		if (err && err->code != EBUSY)
			log_warn("%s", err->msg);
		spawn_again(s, &s->behind_upkeep);
	} else if (err) {
		spawn_error(s, c->id, err);
	} else {
		spawn_ok(s, c->id, NULL);
	}
}

bool upkeep_reserved(const char *name)
{
	return strncmp(name, SKELETON_PREFIX, strlen(SKELETON_PREFIX)) == 0 ||
	       strncmp(name, BASE_PREFIX, strlen(BASE_PREFIX)) == 0;
}

/* Puts entries into as many frames as they need: {u8 more, u32 n, entries}. */
void upkeep_volume_listed(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	cleanup_free struct volume_call *c = ctx;
	struct reader r = reader_of(result->data, result->len);
	cleanup_buf struct buf part = BUF_INIT;
	cleanup_buf struct buf frame = BUF_INIT;
	uint32_t n = 0;
	char name[SANDBOX_NAME_MAX + 1];

	if (err) {
		spawn_error(s, c->id, err);
		return;
	}
	for (;;) {
		bool end = r.left == 0 || r.bad;
		if (end || part.len > REPLY_ROOM) {
			buf_clear(&frame);
			put_u8(&frame, !end);
			put_u32(&frame, n);
			buf_add(&frame, part.data, part.len);
			spawn_ok(s, c->id, &frame);
			buf_clear(&part);
			n = 0;
		}
		if (end)
			return;
		get_str(&r, name, sizeof name);
		uint64_t bytes = get_u64(&r);
		if (r.bad || upkeep_reserved(name))
			continue;
		put_str(&part, name);
		put_u64(&part, bytes);
		n++;
	}
}

int upkeep_volume(struct spawn *s, const struct volume_call *call, job_done done, struct err *err)
{
	struct volume_call *c = xcalloc(1, sizeof *c);
	struct job *j;

	*c = *call;
	if (spawn_job(s, volume_work, c, done, c, &j, err) < 0) {
		free(c);
		return -1;
	}
	j->volumes[0] = c->name[0] ? c->name : NULL;
	j->volumes[1] = c->to[0] ? c->to : NULL;
	j->upkeep = c->id == 0;
	return 0;
}

/* -- what is kept ready ---------------------------------------------------------------------------------------------------- */

static void pool_ready(struct source *src, uint32_t events)
{
	struct spawn *s = container_of(src, struct spawn, pool_src);

	if (netns_pool_refilled(&s->pool))
		return;
	spawn_unwatch(s, src); /* before the close: a worker may hold a copy, which would keep it in epoll */
	netns_pool_refill_end(&s->pool);
}

void spawn_pool(struct spawn *s)
{
	struct err err = ERR_INIT;

	if (s->pool.refill >= 0 || !ids_host_root()) /* without root each sandbox makes its own */
		return;
	if (netns_pool_refill(&s->pool, &err) < 0) {
		log_warn("pool of network namespaces: %s", err.msg);
		return;
	}
	if (s->pool.refill < 0)
		return;
	s->pool_src = (struct source){s->pool.refill, pool_ready};
	if (spawn_watch(s, &s->pool_src, EPOLLIN) < 0)
		log_error("watch the pool: %m");
}

static int skeleton_work(void *arg, struct buf *result, struct err *err)
{
	struct spawn *s = arg;
	char name[SKELETON_NAME];

	skeleton_name(SKELETON_HOST, name);
	if (skeleton_ensure(&s->volumes, name, err) < 0)
		return -1;
	buf_adds(result, name);
	return 0;
}

/* Not a base image; "base-HASH" is what skeletons were called before there were bases. */
static bool is_skeleton(const char *name)
{
	return upkeep_reserved(name) && (strncmp(name, BASE_PREFIX, strlen(BASE_PREFIX)) != 0 ||
					 !base_id_split(name + strlen(BASE_PREFIX), NULL));
}

/* Skeletons of the host as it was, which no sandbox uses any more. */
static void remove_old_skeletons(struct spawn *s)
{
	cleanup_buf struct buf list = BUF_INIT;
	uint32_t n = volume_list(&s->volumes, &list);
	struct reader r = reader_of(list.data, list.len);

	for (uint32_t k = 0; k < n; k++) {
		struct volume_call c = {.s = s, .verb = SPAWN_VOLUME_REMOVE};
		get_str(&r, c.name, sizeof c.name);
		get_u64(&r);
		if (r.bad || !is_skeleton(c.name) || strcmp(c.name, s->skeleton) == 0 ||
		    spawn_volume_used(s, c.name, false) || spawn_volume_under_work(s, c.name))
			continue;
		upkeep_volume(s, &c, upkeep_volume_done, NULL);
	}
}

static void skeleton_done(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	s->skeleton_job = false;
	s->skeleton_checked = io_now_ms();
	if (err) {
		log_error("%s", err->msg);
	} else if (strcmp(s->skeleton, result->data ? result->data : "") != 0) {
		snprintf(s->skeleton, sizeof s->skeleton, "%s", result->data);
		log_info("skeleton %s of the host is ready", s->skeleton);
		remove_old_skeletons(s);
	}
	if (s->skeleton[0]) {
		spawn_again(s, &s->starts);
		return;
	}
	while (s->starts) { /* no base, no sandbox: say so */
		struct waiting *w = s->starts;
		s->starts = w->next;
		spawn_error(s, w->frame.id, err);
		frame_release(&w->frame);
		free(w);
	}
}

void upkeep_skeleton(struct spawn *s)
{
	struct err err = ERR_INIT;

	if (s->skeleton_job)
		return;
	s->skeleton_job = spawn_job(s, skeleton_work, s, skeleton_done, NULL, NULL, &err) == 0;
	if (!s->skeleton_job)
		log_error("%s", err.msg);
}

static int egress_work(void *arg, struct buf *result, struct err *err)
{
	struct spawn *s = arg;
	return egress_ensure(&s->egress, err);
}

static void egress_checked(struct spawn *s, void *ctx, struct buf *result, const struct err *err)
{
	if (err)
		log_error("%s", err->msg);
}

/* Every ten seconds: what no kernel tells about the limits of sandboxes; idle volumes are unmounted; the rules of egress are still there (an administrator's `nft flush ruleset`
 * takes ours along); the base is still what the host is. */
void upkeep_tick(struct spawn *s, uint64_t now)
{
	struct instance *i, *tmp;
	bool egress = false;

	s->tick = now + TICK_MS;
	for (size_t k = 0; k < s->nmounted; k++) {
		struct volume_call c = {.s = s};
		if (spawn_volume_used(s, s->mounted[k].name, false)) {
			s->mounted[k].idle_since = 0;
		} else if (s->mounted[k].idle_since == 0) {
			s->mounted[k].idle_since = now;
		} else if (now - s->mounted[k].idle_since >= IDLE_UNMOUNT_MS &&
			   !spawn_volume_under_work(s, s->mounted[k].name)) {
			memcpy(c.name, s->mounted[k].name, sizeof c.name);
			upkeep_volume(s, &c, upkeep_volume_done, NULL);
			s->mounted[k--] = s->mounted[--s->nmounted];
		}
	}
	HASH_ITER(hh, s->instances, i, tmp)
	{
		egress |= i->state == RUNNING && i->info.egress != NO_EGRESS;
		if (i->state == RUNNING)
			instance_limits_look(i, now);
	}
	if (egress)
		spawn_job(s, egress_work, s, egress_checked, NULL, NULL, NULL);
	if (now - s->skeleton_checked >= SKELETON_CHECK_MS)
		upkeep_skeleton(s);
	spawn_pool(s);
	shells_refill(s);
}
