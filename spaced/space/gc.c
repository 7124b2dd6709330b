/* Removes what nothing refers to any more: old releases beyond keep_releases, their volumes and sites, layers that no
 * release uses and nobody asked for lately, leftovers of interrupted builds, old logs. In small slices: never more than a
 * few milliseconds of the loop. What is removed wrongly could not be made again, so whatever is not understood stays. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/volume.h"
#include "spaced/git/git.h"
#include "spaced/space/internal.h"
#include "spaced/static/static.h"

#define SOON_MS 2000
#define EVERY_MS (3600 * 1000)
#define SLICE 16
#define SLICE_MS 5
#define LAYER_IDLE_MS (24ULL * 3600 * 1000)
#define BUILD_LOGS 20 /* per Space */
#define RUN_LOGS 5
#define YOUNG_S 3600

struct name {
	char key[SANDBOX_NAME_MAX + 1];
	UT_hash_handle hh;
};

struct gc {
	struct spaces *s;
	uv_timer_t timer;
	bool running;
	char (*spaces)[STORE_ID]; /* still to be looked at */
	size_t nspaces, at;
	struct name *keep; /* volumes, sites, logs that are referred to */
};

static void keep(struct gc *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void keep(struct gc *g, const char *fmt, ...)
{
	struct name *n = xcalloc(1, sizeof *n);
	struct name *old;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(n->key, sizeof n->key, fmt, ap);
	va_end(ap);
	HASH_FIND_STR(g->keep, n->key, old);
	if (old)
		free(n);
	else
		HASH_ADD_STR(g->keep, key, n);
}

static bool kept(const struct gc *g, const char *key)
{
	struct name *n;

	HASH_FIND_STR(g->keep, key, n);
	return n != NULL;
}

static void forget_all(struct gc *g)
{
	struct name *n, *tmp;

	HASH_ITER(hh, g->keep, n, tmp)
	{
		HASH_DEL(g->keep, n);
		free(n);
	}
	free(g->spaces);
	g->spaces = NULL;
	g->nspaces = g->at = 0;
	g->running = false;
}

/* ---- mark ---- */

static bool in_use(struct gc *g, const char *space_id, const char *release_id)
{
	const struct unit *u = unit_find(g->s, space_id);

	if (!u)
		return false;
	if ((u->serving && strcmp(u->serving->release_id, release_id) == 0) ||
	    (u->starting && strcmp(u->starting->release_id, release_id) == 0) ||
	    (u->start_at && strcmp(u->start_release, release_id) == 0))
		return true;
	for (const struct instance *in = u->old; in; in = in->next)
		if (strcmp(in->release_id, release_id) == 0)
			return true;
	return false;
}

static void keep_release(struct gc *g, const struct release *r)
{
	struct run_plan plan = {0};
	struct err err = ERR_INIT;

	if (run_plan_parse(r->recipe, &plan, &err) == 0) {
		for (size_t i = 0; i < plan.nlayers; i++)
			keep(g, "%s", plan.layers[i]);
		if (plan.site)
			keep(g, "%s", plan.site);
		if (plan.base)
			keep(g, BASE_PREFIX "%s", plan.base);
	}
	run_plan_release(&plan);
}

void gc_keep(struct spaces *s, const struct release *r)
{
	if (s->gc->running)
		keep_release(s->gc, r);
}

static void mark_releases(struct gc *g, const struct space *sp)
{
	struct release *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;

	if (store_release_list(g->s->store, sp->id, &list, &n, &err) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		/* how many are newer */
		size_t rank = 0;
		for (size_t k = 0; k < n; k++)
			rank += list[k].created > list[i].created;
		bool want = rank < g->s->config->keep_releases || strcmp(list[i].id, sp->release_id) == 0 ||
			    in_use(g, sp->id, list[i].id);
		if (want || store_release_remove(g->s->store, list[i].id, &err) < 0)
			keep_release(g, &list[i]);
	}
	for (size_t i = 0; i < n; i++)
		release_release(&list[i]);
	free(list);
}

static void mark_logs(struct gc *g, const struct space *sp)
{
	struct build *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;

	for (uint32_t i = 0; i < RUN_LOGS && i < sp->generation; i++)
		keep(g, "run-%s-%u.log", sp->id, sp->generation - i);
	if (store_build_list(g->s->store, sp->id, BUILD_LOGS, &list, &n, &err) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		keep(g, "build-%s.log", list[i].id);
		if (list[i].state == BUILD_QUEUED || list[i].state == BUILD_RUNNING)
			keep(g, "%s", list[i].id); /* its site */
		build_release(&list[i]);
	}
	free(list);
}

/* ---- sweep ---- */

static void sweep_layers(struct gc *g)
{
	struct layer *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;
	uint64_t now = io_wall_ms();

	if (store_layer_list(g->s->store, &list, &n, &err) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		bool recent = list[i].used + LAYER_IDLE_MS > now;
		if (kept(g, list[i].volume) || recent || builder_uses_volume(g->s->builder, list[i].volume) ||
		    store_layer_remove(g->s->store, list[i].key, &err) < 0)
			keep(g, "%s", list[i].volume);
		layer_release(&list[i]);
	}
	free(list);
}

enum swept { SITES, LOGS, REPOS };

static bool ours(const char *volume)
{
	static const char *const prefixes[] = {"src-", "deps-", "pkgs-", "node-", "top-", "tmp-"};

	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(volume, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

/* top-{space id}-{generation} of an instance that is still known. */
static bool top_in_use(struct gc *g, const char *volume)
{
	cleanup_free char *name = xasprintf("app-%s", volume + 4);

	return strncmp(volume, "top-", 4) == 0 && space_instance(g->s, name);
}

/* A folder may hold thousands of files: another thread removes it. */
struct removal {
	uv_work_t work;
	const struct config *config;
	enum swept what;
	char name[NAME_MAX + 1];
};

static void remove_tree(uv_work_t *w)
{
	const struct removal *r = w->data;
	cleanup_free char *repos = xasprintf("%s/%s", r->config->state, STATE_REPOS);
	struct err err = ERR_INIT;

	if ((r->what == SITES ? site_remove(r->config, r->name, &err) : git_repo_remove(repos, r->name, &err)) < 0)
		log_warn("gc: %s", err.msg);
}

static void tree_removed(uv_work_t *w, int status)
{
	(void)status;
	free(w->data);
}

static void remove_later(struct gc *g, enum swept what, const char *name)
{
	struct removal *r = xcalloc(1, sizeof *r);

	r->config = g->s->config;
	r->what = what;
	snprintf(r->name, sizeof r->name, "%s", name);
	r->work.data = r;
	if (uv_queue_work(g->s->loop, &r->work, remove_tree, tree_removed) < 0)
		free(r);
}

static bool is_id(const char *s, size_t n)
{
	return n == STORE_ID - 1 && strspn(s, "0123456789abcdef") >= n;
}

/* "{space id}.git" of a Space that is gone: control died while it was deleted. */
static bool is_orphan(struct gc *g, const char *name)
{
	struct space sp = {0};
	struct err err = ERR_INIT;
	char id[STORE_ID];

	if (strlen(name) != STORE_ID - 1 + 4 || !is_id(name, STORE_ID - 1) || strcmp(name + STORE_ID - 1, ".git") != 0)
		return false;
	memcpy(id, name, STORE_ID - 1);
	id[STORE_ID - 1] = '\0';
	if (store_space_by_id(g->s->store, id, &sp, &err) == 0) {
		space_release(&sp);
		return false;
	}
	return err.code == ENOENT;
}

static void sweep_files(struct gc *g, const char *folder, enum swept what)
{
	cleanup_free char *path = xasprintf("%s/%s", g->s->config->state, folder);
	cleanup_dir DIR *d = opendir(path);
	struct dirent *e;
	unsigned removed = 0;

	while (d && removed < SLICE && (e = readdir(d)) != NULL) {
		/* ".tmp-{build id}": being filled, or left by a death */
		const char *name = what == SITES && strncmp(e->d_name, ".tmp-", 5) == 0 ? e->d_name + 5 : e->d_name;
		struct stat st;
		/* what is young may have come while we looked */
		if (name[0] == '.' || kept(g, name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_mtime + YOUNG_S > time(NULL))
			continue;
		if (what == LOGS)
			unlinkat(dirfd(d), e->d_name, 0);
		else if (what == SITES && is_id(name, strlen(name)) && !builder_active(g->s->builder, name))
			remove_later(g, SITES, name); /* one being filled belongs to a build of ours */
		else if (what == REPOS && is_orphan(g, name))
			remove_later(g, REPOS, name);
		else
			continue;
		removed++;
	}
}

/* Versions of bases for which there is a newer one, when no release stands on them any more. */
static void sweep_bases(struct gc *g)
{
	const char *state = g->s->config->state;
	size_t n;
	cleanup_free void *list = base_list(state, &n);
	char(*ids)[BASE_ID] = list;

	for (size_t i = 0; i < n; i++) {
		char name[BASE_NAME_MAX + 1], newest[BASE_ID];
		cleanup_free char *volume = base_volume(ids[i]);
		if (base_id_split(ids[i], name) && base_newest(state, name, newest) && strcmp(newest, ids[i]) != 0 &&
		    !kept(g, volume) && !builder_uses_base(g->s->builder, ids[i]))
			place_base_remove(g->s->place, ids[i], NULL, NULL);
	}
}

static void on_volumes(void *ctx, const struct place_volume *v, size_t n, const struct err *err)
{
	struct gc *g = ctx;

	if (!g->running)
		return;
	if (!err && !g->s->ending) {
		sweep_layers(g);
		for (size_t i = 0; i < n; i++)
			if (volume_is_data(v[i].name)
				? !storage_wanted(g->s, v[i].name)
				: ours(v[i].name) && !kept(g, v[i].name) && !top_in_use(g, v[i].name) &&
				      !builder_uses_volume(g->s->builder, v[i].name))
				place_volume_remove(g->s->place, v[i].name, NULL, NULL);
		sweep_bases(g);
		sweep_files(g, STATE_SITES, SITES);
		sweep_files(g, STATE_LOGS, LOGS);
		sweep_files(g, STATE_REPOS, REPOS);
	}
	forget_all(g);
}

static void on_timer(uv_timer_t *t);

static bool begin(struct gc *g)
{
	const struct space_filter all = {.viewer_id = "*"};
	struct space *list = NULL;
	struct err err = ERR_INIT;

	if (store_space_list(g->s->store, &all, &list, &g->nspaces, &err) < 0)
		return false;
	g->spaces = xcalloc(g->nspaces, sizeof *g->spaces);
	for (size_t i = 0; i < g->nspaces; i++) {
		memcpy(g->spaces[i], list[i].id, STORE_ID);
		space_release(&list[i]);
	}
	free(list);
	g->running = true;
	return true;
}

static void slice(struct gc *g)
{
	for (unsigned i = 0; i < SLICE && g->at < g->nspaces; i++, g->at++) {
		struct space sp = {0};
		struct err err = ERR_INIT;
		if (store_space_by_id(g->s->store, g->spaces[g->at], &sp, &err) == 0) {
			mark_releases(g, &sp);
			mark_logs(g, &sp);
		}
		space_release(&sp);
	}
}

static void on_timer(uv_timer_t *t)
{
	struct gc *g = t->data;

	if (g->s->ending)
		return;
	if (!g->running && !begin(g)) {
		uv_timer_start(&g->timer, on_timer, EVERY_MS, 0);
		return;
	}
	slice(g);
	if (g->at < g->nspaces) {
		uv_timer_start(&g->timer, on_timer, SLICE_MS, 0);
		return;
	}
	uv_timer_start(&g->timer, on_timer, EVERY_MS, 0);
	place_volumes(g->s->place, on_volumes, g);
}

void gc_soon(struct spaces *s)
{
	struct gc *g = s->gc;

	if (!g->running && !s->ending)
		uv_timer_start(&g->timer, on_timer, SOON_MS, 0);
}

void gc_new(struct spaces *s)
{
	struct gc *g = xcalloc(1, sizeof *g);

	g->s = s;
	uv_timer_init(s->loop, &g->timer);
	g->timer.data = g;
	s->gc = g;
}

static void closed(uv_handle_t *h)
{
	free(h->data);
}

void gc_free(struct spaces *s)
{
	forget_all(s->gc);
	uv_close((uv_handle_t *)&s->gc->timer, closed);
}
