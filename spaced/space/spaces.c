/* What the rest of control asks of Spaces (space.h): making and ending the module, restart, pause, delete, logs, figures. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/base_tools.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"
#include "spaced/static/static.h"

#define SHUTDOWN_GRACE_MS 5000
#define SHUTDOWN_MAX_MS 12000

struct spaces *spaces_new(uv_loop_t *loop, const struct config *config, struct store *store, struct spawner *spawner,
			  struct router *router, struct metrics *metrics)
{
	struct spaces *s = xcalloc(1, sizeof *s);
	const struct builder_callbacks cb = {life_built, s};

	s->loop = loop;
	s->config = config;
	s->store = store;
	s->spawner = spawner;
	s->router = router;
	s->metrics = metrics;
	s->place = place_new(loop, spawner);
	s->builder = builder_new(loop, config, store, s->place, &cb);
	uv_timer_init(loop, &s->tick);
	s->tick.data = s;
	uv_timer_init(loop, &s->shutdown_timer);
	s->shutdown_timer.data = s;
	gc_new(s);
	traffic_new(s);
	sleep_new(s);
	return s;
}

static void unit_free(struct unit *u)
{
	struct instance *next;

	if (u->serving)
		space_instance_free(u->serving);
	if (u->starting)
		space_instance_free(u->starting);
	for (struct instance *in = u->old; in; in = next) {
		next = in->next;
		space_instance_free(in);
	}
	for (struct instance *in = u->extra; in; in = next) {
		next = in->next;
		space_instance_free(in);
	}
	HASH_DELETE(hh, u->s->units, u);
	HASH_DELETE(hh_name, u->s->units_by_name, u);
	free(u->name);
	free(u->label);
	free(u);
}

static void timers_closed(uv_handle_t *h)
{
	free(h->data);
}

void spaces_free(struct spaces *s)
{
	struct unit *u, *tmp;

	s->ending = true;
	HASH_ITER(hh, s->units, u, tmp)
	{
		unit_free(u);
	}
	exec_free_all(s);
	gc_free(s);
	traffic_free(s);
	sleep_free(s);
	turns_release(&s->turns);
	builder_free(s->builder);
	place_free(s->place);
	uv_close((uv_handle_t *)&s->tick, NULL);
	uv_close((uv_handle_t *)&s->shutdown_timer, timers_closed);
}

void spaces_spawner_lost(struct spaces *s)
{
	/* Calls under way were answered with ECONNRESET; what runs goes on; spaces_recover() compares when it is back. */
	log_warn("the spawner is gone; %u Spaces wait for it", HASH_COUNT(s->units));
	exec_lost(s);
}

void spaces_activity(struct spaces *s, const char *space, uint64_t requests, uint32_t open, bool visited)
{
	struct unit *u;

	HASH_FIND(hh_name, s->units_by_name, space, strlen(space), u);
	if (u && u->serving) {
		u->serving->requests += requests;
		u->serving->open = open;
		if (visited)
			u->serving->visited = io_now_ms();
	}
}

/* ---- shutdown ---- */

static void shutdown_now(uv_timer_t *t)
{
	struct spaces *s = t->data;

	if (s->shutdown_done)
		s->shutdown_done(s->shutdown_ctx);
	s->shutdown_done = NULL;
}

void life_shutdown_check(struct spaces *s)
{
	struct unit *u, *tmp;

	if (!s->shutdown_done)
		return;
	HASH_ITER(hh, s->units, u, tmp)
	{
		if (u->serving || u->starting || u->extra || u->old)
			return;
	}
	uv_timer_start(&s->shutdown_timer, shutdown_now, 0, 0);
}

static void stop_unit(struct unit *u, uint32_t grace_ms)
{
	struct instance *next;

	u->start_at = 0;
	if (u->starting)
		life_stop(u->starting, 0);
	if (u->serving)
		life_stop(u->serving, grace_ms);
	while (u->extra)
		life_stop(u->extra, grace_ms);
	for (struct instance *in = u->old; in; in = next) {
		next = in->next;
		if (in->state == INST_DRAINING) {
			life_stop(in, grace_ms);
			next = u->old; /* the list may have changed; nothing in it drains twice */
		}
	}
}

void spaces_shutdown(struct spaces *s, bool stop_apps, void (*done)(void *ctx), void *ctx)
{
	struct unit *u, *tmp;

	s->ending = true;
	uv_timer_stop(&s->tick);
	spaces_end_output(s);
	builder_shutdown(s->builder);
	if (stop_apps && place_connected(s->place)) {
		HASH_ITER(hh, s->units, u, tmp)
		{
			stop_unit(u, SHUTDOWN_GRACE_MS);
		}
	}
	s->shutdown_done = done;
	s->shutdown_ctx = ctx;
	uv_timer_start(&s->shutdown_timer, shutdown_now, stop_apps ? SHUTDOWN_MAX_MS : 50, 0);
	if (stop_apps)
		life_shutdown_check(s);
}

/* ---- what people ask for ---- */

void spaces_created(struct spaces *s, const char *space_id)
{
	route_publish_now(s, space_id);
}

void space_tip(struct spaces *s, const struct space *sp, char oid[41])
{
	cleanup_free char *repos = xasprintf("%s/%s", s->config->state, STATE_REPOS);
	cleanup_free char *repo = xasprintf("%s.git", sp->id);
	struct err err = ERR_INIT;

	if (git_repo_branch(repos, repo, sp->default_branch, oid, &err) < 0)
		oid[0] = '\0';
}

/* A release stands on the image that it was built on; what it should stand on may have changed since: another name, or a
 * newer version of the base. */
static bool stands_elsewhere(struct spaces *s, const struct space *sp, const struct run_plan *plan)
{
	struct err ignored = ERR_INIT;
	char id[BASE_ID];

	return base_resolve(s->config->state, sp->base, id, &ignored) < 0 ||
	       strcmp(id, plan->base ? plan->base : "") != 0;
}

static int restart(struct spaces *s, const struct space *sp, bool factory, struct err *err)
{
	struct unit *u = unit_get(s, sp->id, err);
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err ignored = ERR_INIT;
	char oid[41], build_id[STORE_ID];

	if (!u)
		return -1;
	if (sp->stage == STAGE_DELETING)
		return err_text(err, ENOENT, "This Space is being deleted");
	u->crashes.n = 0;
	space_tip(s, sp, oid);
	bool have = sp->release_id && *sp->release_id &&
		    store_release_by_id(s->store, sp->release_id, &rel, &ignored) == 0 &&
		    run_plan_parse(rel.recipe, &plan, &ignored) == 0;
	bool current = have && (!*oid || strcmp(rel.commit, oid) == 0);
	bool moved = have && !plan.site && *oid && stands_elsewhere(s, sp, &plan);
	int rc = 0;
	if (!factory && current && plan.site) {
		life_stage(s, sp->id, EV_PUBLISHED, "");
	} else if (!factory && current && !moved) {
		builder_cancel_space(s->builder, sp->id, OUT_CANCELLED);
		life_start(u, rel.id, "", false);
	} else if (!*oid) {
		rc = err_text(err, ENOENT, "Nothing was pushed to `%s` yet", sp->default_branch);
	} else {
		life_build(s, sp, oid,
			   factory ? "factory rebuild"
			   : moved ? "restart on another base"
				   : "restart",
			   factory, build_id, err);
		rc = *build_id ? 0 : -1;
	}
	run_plan_release(&plan);
	release_release(&rel);
	return rc;
}

int spaces_restart(struct spaces *s, const char *space_id, bool factory, struct err *err)
{
	struct space sp = {0};

	if (store_space_by_id(s->store, space_id, &sp, err) < 0)
		return -1;
	int rc = restart(s, &sp, factory, err);
	space_release(&sp);
	return rc;
}

int spaces_pause(struct spaces *s, const char *space_id, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);

	if (!u)
		return -1;
	if (u->deleting)
		return err_text(err, ENOENT, "This Space is being deleted");
	struct instance *serving = u->serving;
	struct instance *starting = u->starting;
	u->serving = u->starting = NULL; /* so that the stage's page is published */
	life_stage(s, space_id, EV_PAUSE, "");
	u->serving = serving;
	u->starting = starting;
	builder_cancel_space(s->builder, space_id, OUT_CANCELLED);
	life_drop_start(u, "the Space was paused");
	stop_unit(u, STOP_GRACE_MS);
	return 0;
}

int spaces_cancel_build(struct spaces *s, const char *build_id, struct err *err)
{
	if (builder_cancel(s->builder, build_id, OUT_CANCELLED))
		return 0;
	return err_text(err, ENOENT, "Build %.24s is not under way", build_id);
}

/* ---- bases ---- */

/* What the route says has changed in the store. */
static int publish_anew(struct spaces *s, const char *space_id, struct err *err)
{
	struct space sp = {0};

	if (store_space_by_id(s->store, space_id, &sp, err) < 0)
		return -1;
	route_publish(s, &sp);
	space_release(&sp);
	return 0;
}

int spaces_set_visibility(struct spaces *s, const char *space_id, enum space_visibility v, struct err *err)
{
	return store_space_set_visibility(s->store, space_id, v, err) < 0 ? -1 : publish_anew(s, space_id, err);
}

int spaces_set_rate(struct spaces *s, const char *space_id, int64_t rate, struct err *err)
{
	return store_space_set_rate(s->store, space_id, rate, err) < 0 ? -1 : publish_anew(s, space_id, err);
}

int spaces_set_base(struct spaces *s, const char *space_id, const char *base, struct err *err)
{
	char id[BASE_ID];

	if (base_resolve(s->config->state, base, id, err) < 0)
		return -1;
	return store_space_set_base(s->store, space_id, base, err);
}

/* Of a release; "" for the host. */
static void base_of_release(struct spaces *s, const char *release_id, char name[BASE_NAME_MAX + 1])
{
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err err = ERR_INIT;

	name[0] = '\0';
	if (*release_id && store_release_by_id(s->store, release_id, &rel, &err) == 0 &&
	    run_plan_parse(rel.recipe, &plan, &err) == 0 && plan.base)
		base_id_split(plan.base, name);
	run_plan_release(&plan);
	release_release(&rel);
}

static bool runs_on_base(struct spaces *s, const char *space_id, const char *name)
{
	const struct unit *u = unit_find(s, space_id);
	const struct instance *in[2] = {u ? u->serving : NULL, u ? u->starting : NULL};
	char of[BASE_NAME_MAX + 1];

	for (size_t i = 0; i < 2; i++) {
		if (in[i]) {
			base_of_release(s, in[i]->release_id, of);
			if (strcmp(of, name) == 0)
				return true;
		}
	}
	for (const struct instance *old = u ? u->old : NULL; old;
	     old = old->next) { /* the extra ones are of the first */
		base_of_release(s, old->release_id, of);
		if (strcmp(of, name) == 0)
			return true;
	}
	return false;
}

/* Every Space that is to stand on it, or that does. */
static int base_users(struct spaces *s, const char *name, size_t *users, char first[120], struct err *err)
{
	const struct space_filter all = {.viewer_id = "*"};
	struct space *list = NULL;
	size_t n = 0;

	*users = 0;
	if (store_space_list(s->store, &all, &list, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		char of[BASE_NAME_MAX + 1];
		base_of_release(s, list[i].release_id, of);
		if (strcmp(list[i].base, name) == 0 || strcmp(of, name) == 0 || runs_on_base(s, list[i].id, name)) {
			if (!(*users)++)
				snprintf(first, 120, "%s/%s", list[i].owner, list[i].name);
		}
		space_release(&list[i]);
	}
	free(list);
	return 0;
}

int spaces_remove_base(struct spaces *s, const char *name, struct err *err)
{
	char chosen[BASE_NAME_MAX + 1], first[120] = "";
	size_t n, users, found = 0;
	cleanup_free void *list = base_list(s->config->state, &n);
	char(*ids)[BASE_ID] = list;

	base_default(s->config->state, chosen);
	if (strcmp(chosen, name) == 0)
		return err_text(err, EBUSY,
				"`%s` is the default base: choose another first (spacectl base default host)", name);
	if (base_users(s, name, &users, first, err) < 0)
		return -1;
	if (users)
		return err_text(err, EBUSY,
				"the base `%s` is in use by %s%s: move them (spacectl space base OWNER/NAME default; "
				"spacectl space restart OWNER/NAME)",
				name, first, users > 1 ? " and others" : "");
	for (size_t i = 0; i < n; i++) {
		char of[BASE_NAME_MAX + 1];
		if (!base_id_split(ids[i], of) || strcmp(of, name) != 0)
			continue;
		found++;
		if (builder_uses_base(s->builder, ids[i]))
			return err_text(err, EBUSY, "the base `%s` is in use by a build", name);
	}
	if (!found)
		return err_text(err, ENOENT, "there is no base `%s`", name);
	for (size_t i = 0; i < n; i++) {
		char of[BASE_NAME_MAX + 1];
		if (base_id_split(ids[i], of) && strcmp(of, name) == 0)
			place_base_remove(s->place, ids[i], NULL, NULL);
	}
	return 0;
}

/* ---- delete ---- */

struct removal {
	uv_work_t work;
	char *repos, *repo;
};

static void remove_repo(uv_work_t *w)
{
	struct removal *r = w->data;
	struct err err = ERR_INIT;

	if (git_repo_remove(r->repos, r->repo, &err) < 0)
		log_warn("remove %s: %s", r->repo, err.msg);
}

static void removed_repo(uv_work_t *w, int status)
{
	struct removal *r = w->data;

	(void)status;
	free(r->repos);
	free(r->repo);
	free(r);
}

int spaces_delete(struct spaces *s, const char *space_id, struct err *err)
{
	struct unit *u = unit_get(s, space_id, err);

	if (!u)
		return -1;
	if (u->deleting)
		return 0;
	u->deleting = true;
	life_stage(s, space_id, EV_DELETE, "");
	builder_cancel_space(s->builder, space_id, OUT_CANCELLED);
	life_drop_start(u, "the Space was deleted");
	stop_unit(u, 1000);
	life_delete_next(u);
	return 0;
}

/* Everything below is referred to by the Space's record only; what a crash leaves behind is found by gc. */
static void delete_now(struct unit *u)
{
	struct spaces *s = u->s;
	struct removal *r = xcalloc(1, sizeof *r);
	cleanup_free char *host = xasprintf("%s.%s", u->label, s->config->domain);
	char data[SANDBOX_NAME_MAX + 1] = "";
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(s->store, u->id, &sp, &err) == 0)
		storage_volume(&sp, data);
	space_release(&sp);
	r->repos = xasprintf("%s/%s", s->config->state, STATE_REPOS);
	r->repo = xasprintf("%s.git", u->id);
	r->work.data = r;
	domain_routes_remove(s, u->id);
	if (store_space_remove(s->store, u->id, &err) < 0)
		log_error("space %s: %s", u->id, err.msg);
	router_remove(s->router, host);
	if (*data)
		place_volume_remove(s->place, data, NULL, NULL);
	log_info("%s: deleted", u->name);
	uv_queue_work(s->loop, &r->work, remove_repo, removed_repo);
	unit_free(u);
	gc_soon(s);
}

void life_delete_next(struct unit *u)
{
	life_tick_need(u->s); /* never from within a caller that still holds the unit */
}

bool unit_delete_due(struct unit *u)
{
	/* its uid range is free for another Space from then on: nothing may run there any more */
	if (!u->deleting || u->serving || u->starting || u->extra || u->old || builder_busy(u->s->builder, u->id))
		return false;
	delete_now(u);
	return true;
}

/* ---- logs and figures ---- */

static bool build_of_space(struct spaces *s, const char *space_id, const char *build_id, char out[STORE_ID])
{
	struct build *list = NULL;
	struct build one = {0};
	struct err err = ERR_INIT;
	size_t n = 0;
	bool found = false;

	if (build_id && *build_id) {
		found = store_build_by_id(s->store, build_id, &one, &err) == 0 && strcmp(one.space_id, space_id) == 0;
		if (found)
			snprintf(out, STORE_ID, "%s", one.id);
		build_release(&one);
		return found;
	}
	if (store_build_list(s->store, space_id, 1, &list, &n, &err) < 0)
		return false;
	if (n) {
		snprintf(out, STORE_ID, "%s", list[0].id);
		found = true;
	}
	for (size_t i = 0; i < n; i++)
		build_release(&list[i]);
	free(list);
	return found;
}

char *spaces_log_path(struct spaces *s, const char *space_id, bool build, const char *build_id)
{
	struct space sp = {0};
	struct err err = ERR_INIT;
	char id[STORE_ID];
	char *path = NULL;

	if (build)
		return build_of_space(s, space_id, build_id, id) ? logfile_build(s->config, id) : NULL;
	if (store_space_by_id(s->store, space_id, &sp, &err) == 0 && sp.generation)
		path = logfile_run(s->config, sp.id, sp.generation);
	space_release(&sp);
	return path;
}

bool spaces_log_live(struct spaces *s, const char *space_id, bool build, const char *build_id)
{
	struct unit *u = unit_find(s, space_id);
	char id[STORE_ID];

	if (!s->recovered)
		return true; /* who followed it at the control before goes on; whether it is over will be known in a moment */
	if (!build)
		return u && (u->serving || u->starting || u->start_at);
	if (!build_of_space(s, space_id, build_id, id))
		return false;
	return builder_active(s->builder, id) || (u && u->starting && strcmp(u->starting->build_id, id) == 0) ||
	       (u && u->start_at && strcmp(u->start_build, id) == 0);
}

unsigned spaces_queue_position(struct spaces *s, const char *build_id)
{
	return builder_position(s->builder, build_id);
}

bool spaces_live(struct spaces *s, const char *space_id, struct space_live *out)
{
	struct unit *u = unit_find(s, space_id);
	const struct instance *in = u ? (u->serving ? u->serving : u->starting) : NULL;

	*out = (struct space_live){0};
	if (!in)
		return false;
	snprintf(out->instance, sizeof out->instance, "%s", in->name);
	snprintf(out->commit, sizeof out->commit, "%s", in->commit);
	out->started = in->started;
	out->requests = in->requests;
	out->open_connections = in->open;
	out->port = in->port;
	out->instances = replicas_serving(u);
	return true;
}

void spaces_stats(struct spaces *s, const char *space_id,
		  void (*cb)(void *ctx, const char *instance, const struct place_stats *stats, const struct err *err),
		  void *ctx)
{
	const struct unit *u = unit_find(s, space_id);
	const struct instance *in = u ? (u->serving ? u->serving : u->starting) : NULL;

	place_stats(s->place, in ? in->name : "none", cb, ctx);
}
