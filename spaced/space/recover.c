/* After a restart of control or of the spawner: compares what runs with what the store says. Running apps are adopted and
 * keep answering; what should run and does not is started in turn; interrupted builds are queued again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/space/internal.h"

struct running {
	char name[SANDBOX_NAME_MAX + 1];
	char space_id[STORE_ID];
	uint32_t generation;
	uint64_t started;
};

bool instance_name_parse(const char *name, char space_id[STORE_ID], uint32_t *generation)
{
	char *end;

	if (strncmp(name, "app-", 4) != 0 || strlen(name) < 4 + STORE_ID || name[4 + STORE_ID - 1] != '-')
		return false;
	memcpy(space_id, name + 4, STORE_ID - 1);
	space_id[STORE_ID - 1] = '\0';
	unsigned long g = strtoul(name + 4 + STORE_ID, &end, 10);
	if (*end || !g || g > UINT32_MAX)
		return false;
	*generation = (uint32_t)g;
	return true;
}

static bool parse_name(const struct place_status *v, struct running *out)
{
	if (!instance_name_parse(v->name, out->space_id, &out->generation))
		return false;
	out->started = v->started;
	memcpy(out->name, v->name, sizeof out->name);
	return true;
}

static int by_generation(const void *a, const void *b)
{
	const struct running *x = a, *y = b;
	int c = strcmp(x->space_id, y->space_id);

	return c ? c : (x->generation > y->generation) - (x->generation < y->generation);
}

/* ---- first time: from the store ---- */

enum adopted_as { AS_SERVING, AS_EXTRA, AS_OLD };

static bool adopt(struct spaces *s, const struct space *sp, const struct running *r, enum adopted_as as)
{
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err err = ERR_INIT;
	struct unit *u = unit_get(s, sp->id, &err);
	bool ok = u && sp->release_id && *sp->release_id &&
		  store_release_by_id(s->store, sp->release_id, &rel, &err) == 0 &&
		  run_plan_parse(rel.recipe, &plan, &err) == 0 && plan.argv;

	if (ok) {
		struct instance *in = xcalloc(1, sizeof *in);
		in->unit = u;
		in->generation = r->generation;
		in->state = INST_SERVING;
		in->up = true;
		storage_adopted(sp, in->data);
		in->port = plan.port;
		in->headers = xstrdup(plan.headers ? plan.headers : "");
		in->started = r->started;
		in->began = in->visited = io_now_ms();
		memcpy(in->name, r->name, sizeof in->name);
		snprintf(in->release_id, sizeof in->release_id, "%s", rel.id);
		snprintf(in->commit, sizeof in->commit, "%s", rel.commit);
		if (as == AS_SERVING) {
			u->serving = in;
		} else if (as == AS_EXTRA) {
			replicas_link(in);
		} else {
			in->next = u->old;
			u->old = in;
		}
		/* The one before us may have died between what it noted down and what it did: before the freeze, or before the
		 * thaw, which does no harm to what runs. */
		if (sp->stage == STAGE_SLEEPING)
			sleep_freeze(in);
		else
			place_thaw(s->place, in->name, NULL, NULL);
	}
	run_plan_release(&plan);
	release_release(&rel);
	return ok;
}

static void stop_stray(struct spaces *s, const char *name)
{
	log_info("recover: stopping %s", name);
	place_stop(s->place, name, 0, NULL, NULL);
}

/* What should run now that does not: the release that serves, or the newest one that was just being started. */
static bool wanted_release(struct spaces *s, const struct space *sp, char out[STORE_ID])
{
	struct release *list = NULL;
	struct run_plan plan = {0};
	struct err err = ERR_INIT;
	size_t n = 0;
	size_t pick = 0;
	bool found = false;

	if (store_release_list(s->store, sp->id, &list, &n, &err) < 0)
		return false;
	bool newest = sp->stage == STAGE_APP_STARTING || sp->stage == STAGE_RUNNING_APP_STARTING;
	while (!newest && pick < n && strcmp(list[pick].id, sp->release_id) != 0)
		pick++;
	for (size_t i = 0; newest && i < n; i++)
		if (list[i].created > list[pick].created)
			pick = i;
	if (pick < n && run_plan_parse(list[pick].recipe, &plan, &err) == 0 && plan.argv) {
		snprintf(out, STORE_ID, "%s", list[pick].id);
		found = true;
	}
	run_plan_release(&plan);
	for (size_t i = 0; i < n; i++)
		release_release(&list[i]);
	free(list);
	return found;
}

static bool should_run(enum space_stage st)
{
	return stage_serves(st) || st == STAGE_APP_STARTING || st == STAGE_BUILDING;
}

static bool is_in(const uint32_t *list, size_t n, uint32_t generation)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == generation)
			return true;
	return false;
}

/* Of several that serve (replicas.c) the store names all, and one as the first. If just that one is gone another one is. */
static bool adopt_all(struct spaces *s, const struct space *sp, const struct running *r, size_t n)
{
	uint32_t generations[UNIT_INSTANCES_MAX], others[UNIT_INSTANCES_MAX];
	size_t nothers = 0;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < n; i++)
		generations[i] = r[i].generation;
	if (store_replica_list(s->store, sp->id, others, UNIT_INSTANCES_MAX, &nothers, &err) < 0)
		log_error("recover: %s", err.msg);
	int pick = stage_adopt(sp->stage, sp->serving, generations, n);
	for (size_t i = 0; pick < 0 && stage_serves(sp->stage) && i < n; i++)
		if (is_in(others, nothers, generations[i]))
			pick = (int)i;
	bool adopted = pick >= 0 && adopt(s, sp, &r[pick], AS_SERVING);
	if (adopted && generations[pick] != sp->serving &&
	    store_space_set_release(s->store, sp->id, sp->release_id, generations[pick], &err) < 0)
		log_error("recover: %s", err.msg);
	for (size_t i = 0; i < nothers; i++) {
		bool serves = adopted && stage_serves(sp->stage) && is_in(generations, n, others[i]) &&
			      others[i] != generations[pick];
		if (!serves && store_replica_remove(s->store, sp->id, others[i], &err) < 0)
			log_error("recover: %s", err.msg);
	}
	for (size_t i = 0; i < n; i++) {
		if (adopted && (int)i == pick)
			continue;
		enum adopted_as as = is_in(others, nothers, generations[i]) ? AS_EXTRA : AS_OLD;
		if (!adopted || !stage_serves(sp->stage) || !adopt(s, sp, &r[i], as))
			stop_stray(s, r[i].name);
	}
	if (adopted)
		life_tick_need(s); /* those that are missing */
	return adopted;
}

static void recover_space(struct spaces *s, const struct space *sp, const struct running *r, size_t n)
{
	struct err err = ERR_INIT;
	char release[STORE_ID];

	for (; n > UNIT_INSTANCES_MAX; n--)
		stop_stray(s, r++->name);
	bool adopted = adopt_all(s, sp, r, n);
	if (sp->stage == STAGE_DELETING) {
		struct unit *u = unit_get(s, sp->id, &err);
		if (u) {
			u->deleting = true;
			life_delete_next(u);
		}
		return;
	}
	bool start = adopted ? sp->stage == STAGE_RUNNING_APP_STARTING : should_run(sp->stage);
	/* a first build that goes on has no release to start meanwhile */
	if (start && (sp->stage != STAGE_BUILDING || *sp->release_id) && wanted_release(s, sp, release)) {
		struct unit *u = unit_get(s, sp->id, &err);
		if (!u)
			return;
		/* What was healthy once is started again as after a crash: a newer commit does not drop that. */
		life_start_at(u, release, "", stage_builds(sp->stage) || sp->stage == STAGE_RUNNING, 0);
		if (!adopted && sp->stage == STAGE_RUNNING)
			life_stage(s, sp->id, EV_CRASHED, "Starting again after a restart of the host.");
		else if (!adopted && sp->stage == STAGE_RUNNING_BUILDING)
			life_stage(s, sp->id, EV_CRASHED, "");
	}
}

static void resume_builds(struct spaces *s)
{
	struct build *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;

	if (store_build_unfinished(s->store, &list, &n, &err) < 0) {
		log_error("recover: %s", err.msg);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct space sp = {0};
		bool newer = false;
		for (size_t k = i + 1; k < n; k++)
			newer |= strcmp(list[k].space_id, list[i].space_id) == 0;
		if (newer) {
			store_build_set(s->store, list[i].id, BUILD_SUPERSEDED, NULL, "a newer commit was pushed",
					&err);
		} else if (store_space_by_id(s->store, list[i].space_id, &sp, &err) == 0 &&
			   sp.stage != STAGE_DELETING) {
			log_info("recover: build %s is queued again", list[i].id);
			if (builder_resume(s->builder, &sp, &list[i], &err) < 0)
				log_error("recover: %s", err.msg);
			else if (!stage_builds(sp.stage))
				life_stage(s, sp.id, EV_BUILD, "");
		}
		space_release(&sp);
	}
	for (size_t i = 0; i < n; i++)
		build_release(&list[i]);
	free(list);
}

/* Control died between two writes. A branch has moved and no build knows of it: it is built now. The stage says building,
 * and no build is unfinished: what the builds' records say. */
static void settle_stages(struct spaces *s, const struct space *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct build *b = NULL;
		struct err err = ERR_INIT;
		size_t count = 0;
		char id[STORE_ID], oid[41];
		if (list[i].stage == STAGE_PAUSED || list[i].stage == STAGE_DELETING ||
		    store_build_list(s->store, list[i].id, 1, &b, &count, &err) < 0)
			continue;
		space_tip(s, &list[i], oid);
		if (*oid && (!count || strcmp(b[0].commit, oid) != 0)) {
			log_info("recover: %s/%s %.7s was pushed and not built", list[i].owner, list[i].name, oid);
			life_build(s, &list[i], oid, "push", false, id, &err);
		} else if (stage_builds(list[i].stage) &&
			   (!count || (b[0].state != BUILD_QUEUED && b[0].state != BUILD_RUNNING))) {
			/* its result was not noted down: once more */
			if (count && b[0].state == BUILD_SUCCEEDED)
				life_build(s, &list[i], b[0].commit, "restart", false, id, &err);
			else
				life_stage(s, list[i].id, EV_BUILD_FAILED, count ? b[0].error : "");
		}
		for (size_t k = 0; k < count; k++)
			build_release(&b[k]);
		free(b);
	}
}

/* What was replaced before we came, or was never healthy: what the proxies have in flight to it has its time. */
static void retire_old(struct spaces *s)
{
	struct unit *u, *tmp;
	struct instance *next;

	HASH_ITER(hh, s->units, u, tmp)
	{
		for (struct instance *in = u->old; in; in = next) {
			next = in->next;
			if (in->state == INST_SERVING)
				life_retire(in);
		}
	}
}

static void first_recovery(struct spaces *s, const struct running *r, size_t n)
{
	const struct space_filter all = {.viewer_id = "*"};
	struct space *list = NULL;
	struct err err = ERR_INIT;
	size_t count = 0;
	bool *known = xcalloc(n, sizeof *known);

	if (store_space_list(s->store, &all, &list, &count, &err) < 0) {
		log_error("recover: %s", err.msg);
		abort(); /* without the store nothing here can be right; the parent starts us again */
	}
	for (size_t i = 0; i < count; i++) {
		size_t from = 0, len = 0;
		while (from < n && strcmp(r[from].space_id, list[i].id) != 0)
			from++;
		while (from + len < n && strcmp(r[from + len].space_id, list[i].id) == 0)
			known[from + len++] = true;
		recover_space(s, &list[i], r + from, len);
		struct space now = {0};
		if (store_space_by_id(s->store, list[i].id, &now, &err) == 0)
			route_publish(s, &now);
		space_release(&now);
	}
	for (size_t i = 0; i < n; i++)
		if (!known[i])
			stop_stray(s, r[i].name);
	resume_builds(s);
	settle_stages(s, list, count);
	for (size_t i = 0; i < count; i++)
		space_release(&list[i]);
	free(list);
	free(known);
	s->recovered = true;
	log_info("recover: %zu Spaces, %zu apps were running", count, n);
	router_ready(s->router);
	retire_old(s);
	starts_settle(s);
}

/* ---- later: the spawner came back ---- */

static const struct place_status *status_of(const struct place_status *v, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].name, name) == 0)
			return &v[i];
	return NULL;
}

static void compare(struct spaces *s, struct instance *in, const struct place_status *v, size_t n)
{
	static const struct sandbox_exit lost = {.status = 137, .reason = "it was gone after a restart of the spawner"};
	const struct place_status *st = in ? status_of(v, n, in->name) : NULL;
	char name[SANDBOX_NAME_MAX + 1];

	if (!in || !in->up)
		return;
	if (st && st->running) {
		if (in->state == INST_STOPPING) {
			in->stop_sent = false;
			life_stop(in, 0);
		}
		return;
	}
	if (in->stop_sent) {
		life_gone(in); /* the answer was lost with the spawner */
		return;
	}
	memcpy(name, in->name, sizeof name);
	spaces_exited(s, name, st ? &st->exit : &lost);
}

static void compare_unit(struct unit *u, const struct place_status *v, size_t n)
{
	char names[UNIT_INSTANCES_MAX][SANDBOX_NAME_MAX + 1];
	size_t count = 0;

	/* by name: each comparison may free instances */
	for (struct instance *in = u->extra; in && count < UNIT_INSTANCES_MAX; in = in->next)
		memcpy(names[count++], in->name, sizeof names[0]);
	for (struct instance *in = u->old; in && count < UNIT_INSTANCES_MAX; in = in->next)
		memcpy(names[count++], in->name, sizeof names[0]);
	compare(u->s, u->serving, v, n);
	compare(u->s, u->starting, v, n);
	for (size_t i = 0; i < count; i++)
		compare(u->s, space_instance(u->s, names[i]), v, n);
}

static void on_list(void *ctx, const struct place_status *v, size_t n, const struct err *err)
{
	struct spaces *s = ctx;
	struct unit *u, *tmp;

	if (err) {
		log_error("recover: %s", err->msg); /* the next spawner's arrival tries again */
		return;
	}
	struct running *r = xcalloc(n, sizeof *r);
	size_t running = 0;
	for (size_t i = 0; i < n; i++) {
		bool app = parse_name(&v[i], &r[running]);
		if (!app && strncmp(v[i].name, "build-", 6) == 0 && builder_owns(s->builder, v[i].name))
			continue;
		if (!v[i].running)
			traffic_note(s, v[i].name, v[i].exit.received, v[i].exit.sent);
		if (!v[i].running && !space_instance(s, v[i].name))
			place_forget(s->place, v[i].name);
		else if (v[i].running && app && (!s->recovered || !space_instance(s, v[i].name)))
			running++;
		else if (v[i].running && !app)
			stop_stray(s, v[i].name);
	}
	qsort(r, running, sizeof *r, by_generation);
	if (!s->recovered) {
		first_recovery(s, r, running);
	} else {
		for (size_t i = 0; i < running; i++)
			stop_stray(s, r[i].name);
		HASH_ITER(hh, s->units, u, tmp)
		{
			compare_unit(u, v, n);
		}
	}
	builder_reconcile(s->builder, v, n);
	free(r);
	gc_soon(s);
}

void spaces_recover(struct spaces *s)
{
	place_list(s->place, on_list, s);
}
