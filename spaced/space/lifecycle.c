/* The state machine of a Space: the only place that changes stages (table: stage.c), and the order in which an instance
 * takes over from another. Everything else of space/ tells it what happened. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

/* ---- units and instances ---- */

struct unit *unit_find(struct spaces *s, const char *space_id)
{
	struct unit *u;

	HASH_FIND_STR(s->units, space_id, u);
	return u;
}

struct unit *unit_get(struct spaces *s, const char *space_id, struct err *err)
{
	struct unit *u = unit_find(s, space_id);
	struct space sp = {0};

	if (u)
		return u;
	if (store_space_by_id(s->store, space_id, &sp, err) < 0)
		return NULL;
	u = xcalloc(1, sizeof *u);
	u->s = s;
	snprintf(u->id, sizeof u->id, "%s", sp.id);
	u->name = xasprintf("%s/%s", sp.owner, sp.name);
	u->label = xstrdup(sp.label);
	u->sleep_s = sp.sleep_s;
	u->replicas = sp.replicas;
	HASH_ADD_STR(s->units, id, u);
	HASH_ADD_KEYPTR(hh_name, s->units_by_name, u->name, strlen(u->name), u);
	space_release(&sp);
	return u;
}

struct instance *space_instance(struct spaces *s, const char *name)
{
	char id[STORE_ID];

	if (strncmp(name, "app-", 4) != 0 || strlen(name) < 4 + STORE_ID)
		return NULL;
	memcpy(id, name + 4, STORE_ID - 1);
	id[STORE_ID - 1] = '\0';
	struct unit *u = unit_find(s, id);
	if (!u)
		return NULL;
	if (u->serving && strcmp(u->serving->name, name) == 0)
		return u->serving;
	if (u->starting && strcmp(u->starting->name, name) == 0)
		return u->starting;
	struct instance *in = u->extra;
	while (in && strcmp(in->name, name) != 0)
		in = in->next;
	if (in)
		return in;
	in = u->old;
	while (in && strcmp(in->name, name) != 0)
		in = in->next;
	return in;
}

void life_make_old(struct instance *in)
{
	struct unit *u = in->unit;

	if (u->serving == in)
		u->serving = NULL;
	else if (u->starting == in)
		u->starting = NULL;
	else if (!replicas_unlink(in))
		return;
	in->next = u->old;
	u->old = in;
}

static void unlink_instance(struct instance *in)
{
	life_make_old(in);
	for (struct instance **p = &in->unit->old; *p; p = &(*p)->next) {
		if (*p == in) {
			*p = in->next;
			return;
		}
	}
}

/* ---- stages ---- */

void life_stage(struct spaces *s, const char *space_id, enum stage_event ev, const char *message)
{
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(s->store, space_id, &sp, &err) < 0) {
		log_error("space %s: %s", space_id, err.msg);
		return;
	}
	enum space_stage next = stage_next(sp.stage, ev);
	if (store_space_set_stage(s->store, space_id, next, message, &err) < 0)
		log_error("space %s: %s", space_id, err.msg);
	log_info("%s/%s: %s -> %s%s%s", sp.owner, sp.name, space_stage_name(sp.stage), space_stage_name(next),
		 *message ? ": " : "", message);
	sp.stage = next;
	free(sp.stage_message);
	sp.stage_message = xstrdup(message);
	route_publish(s, &sp);
	space_release(&sp);
}

void life_say(struct spaces *s, const char *space_id, const char *message)
{
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(s->store, space_id, &sp, &err) == 0 &&
	    store_space_set_stage(s->store, sp.id, sp.stage, message, &err) == 0) {
		free(sp.stage_message);
		sp.stage_message = xstrdup(message);
		route_publish(s, &sp);
	}
	space_release(&sp);
}

void life_note(struct spaces *s, const char *space_id, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	if (store_event_add(s->store, space_id, NULL, kind, text, &err) < 0)
		log_warn("event: %s", err.msg);
}

/* ---- stopping ---- */

void life_gone(struct instance *in)
{
	struct unit *u = in->unit;
	struct spaces *s = u->s;
	cleanup_free char *top = xasprintf("top-%s-%u", u->id, in->generation);
	unlink_instance(in);
	place_forget(s->place, in->name);
	place_volume_remove(s->place, top, NULL, NULL);
	storage_let_go(in);
	space_instance_free(in);
	if (u->deleting)
		life_delete_next(u);
	life_shutdown_check(s);
}

static void on_stopped(void *ctx, const char *name, const struct err *err)
{
	struct spaces *s = ctx;
	struct instance *in = space_instance(s, name);

	/* ECONNRESET: recover looks again when the spawner is back */
	if (in && (!err || err->code == ENOENT))
		life_gone(in);
	else if (err && err->code != ECONNRESET)
		log_warn("stop %s: %s", name, err->msg);
}

void life_stop(struct instance *in, uint32_t grace_ms)
{
	struct spaces *s = in->unit->s;

	life_make_old(in);
	in->state = INST_STOPPING;
	health_free(in->health);
	in->health = NULL;
	if (in->exited && !in->stop_sent) {
		life_gone(in);
	} else if (in->up && !in->stop_sent) {
		in->stop_sent = true;
		place_stop(s->place, in->name, grace_ms, on_stopped, s);
	}
	/* not up yet: the answer to its start stops it */
}

void life_retire(struct instance *in)
{
	life_make_old(in);
	in->state = INST_DRAINING;
	in->deadline = io_now_ms() + in->unit->s->config->drain_timeout_s * UINT64_C(1000);
	life_tick_need(in->unit->s);
	router_drain(in->unit->s->router, in->name, in->generation);
}

void spaces_idle(struct spaces *s, const char *instance, uint32_t generation)
{
	struct instance *in = space_instance(s, instance);

	if (in && in->generation == generation && in->state == INST_DRAINING)
		life_stop(in, STOP_GRACE_MS);
}

/* A start that something newer makes pointless, under way or still to come. */
void life_drop_start(struct unit *u, const char *why)
{
	struct instance *in = u->starting;

	if (u->start_at && *u->start_build)
		watch_end(u->s, u->start_build, "Not deployed: %s\n", why);
	u->start_at = 0;
	if (!in)
		return;
	if (*in->build_id)
		watch_end(u->s, in->build_id, "Not deployed: %s\n", why);
	life_stop(in, 0);
}

/* ---- building ---- */

void life_build(struct spaces *s, const struct space *sp, const char *commit, const char *cause, bool factory,
		char build_id[STORE_ID], struct err *err)
{
	struct unit *u = unit_get(s, sp->id, err);

	build_id[0] = '\0';
	if (!u)
		return;
	/* The version before serves meanwhile, and goes on if this one fails: what sleeps is no worse off than what is awake. */
	if (u->serving)
		sleep_wake(u, "a new version");
	else if (sp->stage == STAGE_SLEEPING && !u->starting && !u->start_at)
		life_start(u, sp->release_id, "", true);
	builder_cancel_space(s->builder, sp->id, OUT_SUPERSEDED);
	if (u->starting ? !u->starting->again : !u->start_again)
		life_drop_start(u, "a newer commit was pushed");
	if (builder_add(s->builder, sp, commit, cause, factory, build_id, err) < 0)
		build_id[0] = '\0';
	else
		life_stage(s, sp->id, EV_BUILD, "");
}

static void publish_static(struct spaces *s, struct unit *u, const struct build_result *r, const struct release *rel)
{
	struct err err = ERR_INIT;
	cleanup_free char *url = space_url(s->config, u->label);
	cleanup_free char *log = logfile_build(s->config, r->build_id);

	if (store_space_set_release(s->store, u->id, rel->id, 0, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	struct instance *old = u->serving;
	life_drop_start(u, "it is a static Space now");
	if (old)
		life_make_old(old);
	life_stage(s, u->id, EV_PUBLISHED, "");
	replicas_retire(u);
	if (old)
		life_retire(old);
	logfile_append(log, "===== Live =====\n");
	watch_end(s, r->build_id, "\n  %s/\n\n", url);
	life_note(s, u->id, "running", url);
	gc_soon(s);
}

static void built(struct spaces *s, struct unit *u, const struct build_result *r)
{
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err err = ERR_INIT;

	if (store_release_add(s->store, u->id, r->build_id, r->commit, r->recipe, &rel, &err) < 0 ||
	    run_plan_parse(r->recipe, &plan, &err) < 0) {
		life_stage(s, u->id, EV_BUILD_FAILED, err.msg);
		watch_end(s, r->build_id, "%s\n", err.msg);
	} else {
		gc_keep(s, &rel);
		if (plan.site)
			publish_static(s, u, r, &rel);
		else
			life_start(u, rel.id, r->build_id, false);
	}
	run_plan_release(&plan);
	release_release(&rel);
}

static void build_failed(struct spaces *s, struct unit *u, const struct build_result *r, enum stage_event ev)
{
	struct space sp = {0};
	struct err err = ERR_INIT;
	cleanup_free char *text = NULL;

	if (store_space_by_id(s->store, u->id, &sp, &err) < 0)
		return;
	if (sp.stage == STAGE_PAUSED) { /* which is what ended the build */
		watch_end(s, r->build_id, "The Space was paused\n");
		space_release(&sp);
		return;
	}
	bool serves = stage_serves(stage_next(sp.stage, ev));
	if (serves)
		text = xasprintf("The build of %.7s failed: %s The version before still runs.", r->commit, r->message);
	else
		text = xstrdup(r->message);
	life_stage(s, u->id, ev, text);
	life_note(s, u->id, "build failed", r->message);
	watch_end(s, r->build_id, "%s: %s\n%s", r->outcome == OUT_CANCELLED ? "Cancelled" : "Failed", r->message,
		  serves ? "The version before still runs.\n" : "");
	space_release(&sp);
}

void life_built(void *ctx, const struct build_result *r)
{
	struct spaces *s = ctx;
	struct err err = ERR_INIT;
	struct unit *u = unit_get(s, r->space_id, &err);

	if (!u) {
		watch_end(s, r->build_id, "The Space was deleted\n");
		return;
	}
	if (u->deleting) {
		watch_end(s, r->build_id, "The Space was deleted\n");
		life_delete_next(u);
		return;
	}
	/* also one that was cancelled or failed while its successor waits: the stage belongs to that */
	if (r->outcome == OUT_SUPERSEDED || builder_expects(s->builder, u->id)) {
		watch_end(s, r->build_id, "Not deployed: a newer build was asked for\n");
		return;
	}
	if (r->card) {
		cleanup_free char *json = card_json(r->card);
		if (store_space_set_card(s->store, u->id, kind_name(r->kind), json, &err) < 0)
			log_warn("space %s: %s", u->id, err.msg);
	}
	switch (r->outcome) {
	case OUT_BUILT:
		built(s, u, r);
		break;
	case OUT_CONFIG_ERROR:
		build_failed(s, u, r, EV_CONFIG_ERROR);
		break;
	case OUT_NO_APP_FILE:
		build_failed(s, u, r, EV_NO_APP_FILE);
		break;
	default:
		build_failed(s, u, r, EV_BUILD_FAILED);
	}
}

/* ---- starting ---- */

void life_start_at(struct unit *u, const char *release_id, const char *build_id, bool again, uint64_t ms)
{
	char release[STORE_ID], build[STORE_ID];

	/* the arguments may be these fields */
	snprintf(release, sizeof release, "%s", release_id);
	snprintf(build, sizeof build, "%s", build_id);
	memcpy(u->start_release, release, sizeof release);
	memcpy(u->start_build, build, sizeof build);
	u->start_again = again;
	u->start_at = io_now_ms() + ms;
	u->start_turn = ++u->s->arrivals;
	u->told = false;
	life_tick_need(u->s);
}

void life_start_later(struct instance *in, uint32_t ms)
{
	struct unit *u = in->unit;

	if (in->extra) {
		replicas_later(in, ms);
		return;
	}
	life_start_at(u, in->release_id, in->build_id, in->again, ms);
	unlink_instance(in);
	space_instance_free(in);
}

void life_restart_alone(struct unit *u, const char *message)
{
	const struct instance *in = u->starting ? u->starting : u->serving;
	struct instance *serving = u->serving;
	char release[STORE_ID];

	if (!in)
		return;
	snprintf(release, sizeof release, "%s", in->release_id);
	life_drop_start(u, message);
	u->serving = NULL; /* so that the stage's page is published */
	life_stage(u->s, u->id, EV_CRASHED, message);
	u->serving = serving;
	if (serving)
		life_stop(serving, STOP_GRACE_MS);
	u->start_alone = true;
	life_start_at(u, release, "", false, 0);
}

/* Each start takes a volume and a sandbox, and the one before it goes slower than people can ask for a restart. */
bool life_may_start(const struct unit *u)
{
	unsigned going = 0;

	for (const struct instance *in = u->old; in; in = in->next)
		going += in->state == INST_STOPPING;
	return going < GOING_MAX && place_connected(u->s->place) &&
	       !(u->start_alone && (u->old || u->serving || u->extra));
}

void life_start(struct unit *u, const char *release_id, const char *build_id, bool again)
{
	if (u->serving)
		sleep_wake(u, "a new version"); /* it serves until that is healthy, and goes on if it never is */
	life_drop_start(u, "a newer start began");
	if (!again)
		life_stage(u->s, u->id, EV_START, "");
	life_start_at(u, release_id, build_id, again, 0);
	starts_settle(u->s);
}

void life_healthy(struct instance *in)
{
	struct unit *u = in->unit;
	struct spaces *s = u->s;
	struct instance *old = u->serving;
	struct err err = ERR_INIT;
	cleanup_free char *url = space_url(s->config, u->label);
	double took = (double)(io_now_ms() - in->began) / 1000;

	if (in->extra) {
		replicas_healthy(in);
		return;
	}
	/* Those of the release before are not in the route that is published now. */
	struct instance *extra = u->extra;
	u->extra = NULL;
	health_free(in->health);
	in->health = NULL;
	in->state = INST_SERVING;
	in->visited = io_now_ms();
	if (old)
		life_make_old(old);
	u->serving = in;
	u->starting = NULL;
	if (store_space_set_release(s->store, u->id, in->release_id, in->generation, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	life_stage(s, u->id, EV_HEALTHY, "");
	u->extra = extra;
	replicas_retire(u);
	if (old)
		life_retire(old);
	life_tick_need(s);
	if (*in->build_id) {
		cleanup_free char *log = logfile_build(s->config, in->build_id);
		logfile_append(log, "--> start (%.1f s): healthy on port %u\n===== Live =====\n", took, in->port);
		watch_end(s, in->build_id, "\n  %s/\n\n", url);
	}
	life_note(s, u->id, "running", url);
	starts_settle(s);
	gc_soon(s);
}

/* ---- time ---- */

static bool unit_tick(struct unit *u, uint64_t now)
{
	bool more = false;
	struct instance *next;

	for (struct instance *in = u->old; in; in = next) {
		next = in->next;
		if (in->state != INST_DRAINING)
			continue;
		more = true;
		if (now >= in->deadline) {
			router_cut(u->s->router, in->name, in->generation);
			life_stop(in, STOP_GRACE_MS);
			break; /* the list may have changed */
		}
	}
	more |= replicas_settle(u, now);
	return more || u->start_at;
}

/* The timer runs once: whoever needs another tick says so, also for a unit that this one has looked at already. */
static void on_tick(uv_timer_t *t)
{
	struct spaces *s = t->data;
	uint64_t now = io_now_ms();
	struct unit *u, *tmp;
	bool more = false;

	HASH_ITER(hh, s->units, u, tmp)
	{
		if (!unit_delete_due(u))
			more |= unit_tick(u, now) || u->deleting;
	}
	starts_settle(s);
	if (more)
		life_tick_need(s);
}

void life_tick_need(struct spaces *s)
{
	if (!uv_is_active((uv_handle_t *)&s->tick) && !s->ending)
		uv_timer_start(&s->tick, on_tick, TICK_MS, 0);
}
