/* More instances of a Space than one (store.h: replicas). One of them is unit->serving, and that alone goes through deploys, sleep
 * and crashes as if there were no other. The others, unit->extra, are of its release and follow it: they are started while it
 * serves awake, and retired when another release takes over or it goes to sleep. When it ends, one of them takes its place.
 *
 * A deploy switches when the first instance of the new release is healthy, so that no visitor meets two releases in turn; the others
 * join as they become healthy. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/limits.h"
#include "spaced/space/internal.h"

#define AGAIN_MS 2000

static void remember(struct instance *in, bool serves)
{
	struct unit *u = in->unit;
	struct err err = ERR_INIT;

	if ((serves ? store_replica_add : store_replica_remove)(u->s->store, u->id, in->generation, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
}

unsigned replicas_serving(const struct unit *u)
{
	unsigned n = u->serving != NULL;

	for (const struct instance *in = u->extra; in; in = in->next)
		n += in->state == INST_SERVING;
	return n;
}

void replicas_link(struct instance *in)
{
	in->extra = true;
	in->next = in->unit->extra;
	in->unit->extra = in;
}

bool replicas_unlink(struct instance *in)
{
	if (!in->extra)
		return false;
	for (struct instance **p = &in->unit->extra; *p; p = &(*p)->next)
		if (*p == in) {
			*p = in->next;
			break;
		}
	in->extra = false;
	in->next = NULL;
	if (in->state == INST_SERVING)
		remember(in, false);
	return true;
}

static void leave(struct instance *in)
{
	if (in->state == INST_SERVING)
		life_retire(in);
	else
		life_stop(in, 0);
}

void replicas_retire(struct unit *u)
{
	while (u->extra)
		leave(u->extra);
}

void replicas_healthy(struct instance *in)
{
	struct unit *u = in->unit;

	health_free(in->health);
	in->health = NULL;
	in->state = INST_SERVING;
	in->visited = io_now_ms();
	remember(in, true);
	route_publish_now(u->s, u->id);
	cleanup_free char *text = xasprintf("%u of %u instances", replicas_serving(u), u->replicas);
	life_note(u->s, u->id, "running", text);
}

/* Not before the wait is another one started in its place. */
static void wait_after(struct unit *u, struct crashes *c)
{
	int wait = crashes_note(c, io_now_ms());

	u->extra_at = io_now_ms() + (uint64_t)(wait < 0 ? CRASH_WINDOW_MS : wait);
	life_tick_need(u->s);
}

void replicas_ended(struct instance *in, const char *message)
{
	struct unit *u = in->unit;
	bool served = in->state == INST_SERVING;
	cleanup_free char *text = xasprintf("%s: %s", in->name, message);

	life_note(u->s, u->id, "crashed", text);
	wait_after(u, &u->extra_crashes);
	if (in->exited)
		life_gone(in);
	else
		life_stop(in, 0);
	if (!served)
		return;
	route_publish_now(u->s, u->id);
	/* It may have been the last that was asked whether it is quiet. */
	if (u->serving && u->serving->sleep == SLEEP_QUIETING)
		sleep_wake(u, "the end of an instance");
}

void replicas_later(struct instance *in, uint32_t ms)
{
	in->unit->extra_at = io_now_ms() + ms;
	life_tick_need(in->unit->s);
	replicas_unlink(in);
	space_instance_free(in);
}

bool replicas_promote(struct unit *u)
{
	struct instance *in = u->extra;
	struct err err = ERR_INIT;

	while (in && in->state != INST_SERVING)
		in = in->next;
	if (!in)
		return false;
	replicas_unlink(in);
	u->serving = in;
	in->visited = io_now_ms();
	if (store_space_set_release(u->s->store, u->id, in->release_id, in->generation, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	wait_after(u, &u->extra_crashes);
	route_publish_now(u->s, u->id);
	log_info("%s: %s serves now", u->name, in->name);
	return true;
}

bool replicas_quiet(const struct unit *u)
{
	for (const struct instance *in = u->extra; in; in = in->next)
		if (in->quiet)
			return false;
	return true;
}

static void start_one(struct unit *u)
{
	struct space sp = {0};
	struct err err = ERR_INIT;
	struct instance *in = NULL;

	if (store_space_by_id(u->s->store, u->id, &sp, &err) == 0)
		in = start_instance(u, &sp, u->serving->release_id, "", false, &err);
	if (in)
		replicas_link(in);
	else
		log_error("%s: another instance: %s", u->name, err.msg);
	u->extra_at = io_now_ms() + (in ? 0 : AGAIN_MS);
	space_release(&sp);
}

bool replicas_settle(struct unit *u, uint64_t now)
{
	const struct instance *in = u->serving;
	unsigned want = in && in->sleep == SLEEP_AWAKE && !u->deleting ? u->replicas - 1 : 0, n = 0;
	bool fewer = false;

	if (u->s->ending || (in && in->sleep == SLEEP_QUIETING))
		return false;
	for (const struct instance *e = u->extra; e; e = e->next)
		n++;
	for (; n > want; n--) {
		leave(u->extra); /* the youngest */
		fewer = true;
	}
	if (fewer && in)
		route_publish_now(u->s, u->id);
	if (n < want && !u->starting && !u->start_at && now >= u->extra_at && life_may_start(u) && starts_room(u->s)) {
		start_one(u);
		n++;
	}
	return n < want;
}

/* ---- what people ask for ---- */

static int check(const struct spaces *s, const struct space *sp, uint32_t n, struct err *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char each[16], all[16];

	limits_bytes(s->config->memory, each);
	limits_bytes(host, all);
	if (sp->stage == STAGE_DELETING)
		return err_text(err, ENOENT, "This Space is being deleted");
	if (strcmp(sp->sdk, "static") == 0)
		return err_text(err, EINVAL, "A static Space has no process of which there could be more");
	if (n < 1 || n > s->config->replicas_max)
		return err_text(err, EINVAL, "A Space has 1 to %u instances: the option replicas-max of this host",
				s->config->replicas_max);
	if (n > sp->replicas && s->config->memory > host / n)
		return err_text(err, EINVAL, "%u instances of %s each are more than the host's memory, %s", n, each,
				all);
	return 0;
}

int spaces_scale(struct spaces *s, const char *space_id, uint32_t n, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);
	struct space sp = {0};
	int rc = u ? store_space_by_id(s->store, space_id, &sp, err) : -1;

	if (rc == 0)
		rc = check(s, &sp, n, err);
	if (rc == 0)
		rc = store_space_set_replicas(s->store, space_id, n, err);
	space_release(&sp);
	if (rc < 0)
		return -1;
	u->replicas = n;
	u->extra_at = 0;
	u->extra_crashes.n = 0;
	replicas_settle(u, io_now_ms());
	life_tick_need(s);
	return 0;
}

int spaces_set_sticky(struct spaces *s, const char *space_id, bool sticky, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);
	char key[33] = "";

	if (sticky)
		io_random_hex(key, 16);
	if (!u || store_space_set_sticky(s->store, space_id, key, err) < 0)
		return -1;
	route_publish_now(u->s, u->id);
	return 0;
}
