/* See build.h: the queue and the life of a build. Its steps are driven by drive.c. */
#include "spaced/build/build.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/internal.h"
#include "spaced/build/logfile.h"
#include "spaced/git/git.h"

#define LIGHT_BUILDS 4 /* builds that only place code, at the same time */

/* ---- the commit as a struct tree ---- */

static char *repos_path(const struct job *j)
{
	return xasprintf("%s/%s", j->b->config->state, STATE_REPOS);
}

static bool tree_has(void *ctx, const char *path, bool dir)
{
	struct job *j = ctx;
	cleanup_free char *repos = repos_path(j);
	struct err err = ERR_INIT;
	char oid[41];
	bool is_dir;

	return git_repo_entry(repos, j->repo, j->commit, path, oid, &is_dir, &err) == 0 && is_dir == dir;
}

static int tree_read(void *ctx, const char *path, size_t max, struct buf *out, struct err *err)
{
	struct job *j = ctx;
	cleanup_free char *repos = repos_path(j);

	return git_repo_read(repos, j->repo, j->commit, path, max, out, err);
}

static int tree_id(void *ctx, char oid[41], struct err *err)
{
	struct job *j = ctx;

	(void)err;
	memcpy(oid, j->commit, 41);
	return 0;
}

/* ---- decide ---- */

static int read_card(struct job *j, const struct tree *t)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;

	if (t->read(t->ctx, "README.md", CARD_README_MAX, &text, &err) < 0 && err.code != ENOENT) {
		job_end(j, OUT_CONFIG_ERROR, "README.md: %s", err.msg);
		return -1;
	}
	j->has_card = card_parse((struct str){text.data ? text.data : "", text.len}, &j->card, &err) == 0;
	if (j->has_card)
		return 0;
	job_end(j, OUT_CONFIG_ERROR, "%s", err.msg);
	return -1;
}

/* On the base that the Space is to stand on now, with what that gives. */
static int make_recipe(struct job *j, const struct tree *t, struct err *err)
{
	const char *state = j->b->config->state;
	struct tools tools = {0};
	int rc = base_resolve(state, j->wish, j->base, err);

	if (rc == 0 && *j->base)
		rc = base_tools(state, j->base, &tools, err);
	if (rc == 0)
		rc = recipe_make(&j->card, &j->verdict, t, *j->base ? &tools : &j->b->tools, &j->recipe, err);
	if (rc == 0 && *j->base && j->recipe.nlayers)
		logfile_printf(j->log, "note: on the base %s\n", j->base);
	tools_release(&tools);
	return rc;
}

/* The plan, from small reads of the repository. -1: the build has ended. */
static int prepare(struct job *j)
{
	const struct tree t = {tree_has, tree_read, tree_id, j};
	struct err err = ERR_INIT;

	j->prepared = true;
	if (read_card(j, &t) < 0)
		return -1;
	for (size_t i = 0; i < j->card.warnings.n; i++)
		logfile_printf(j->log, "warning: %s\n", j->card.warnings.v[i]);
	kind_decide(&j->card, &t, &j->verdict);
	if (j->verdict.kind == KIND_NONE) {
		job_end(j, OUT_NO_APP_FILE, "%s", j->verdict.why);
		return -1;
	}
	if (j->verdict.kind == KIND_BAD || j->verdict.kind == KIND_DOCKER) {
		job_end(j, OUT_CONFIG_ERROR, "%s", j->verdict.why);
		return -1;
	}
	if (make_recipe(j, &t, &err) < 0) {
		job_end(j, OUT_FAILED, "%s", err.msg);
		return -1;
	}
	return 0;
}

/* Does it have to install anything, or only to place code? */
static bool is_light(struct job *j)
{
	for (size_t i = 0; i < j->recipe.nlayers; i++) {
		const struct layer_plan *l = &j->recipe.layers[i];
		struct layer cached = {0};
		struct err err = ERR_INIT;
		if (!*l->key ? l->nsteps > 1 : j->factory || store_layer_get(j->b->store, l->key, &cached, &err) < 0)
			return false;
		layer_release(&cached);
	}
	return true;
}

/* ---- life ---- */

static void timer_closed(uv_handle_t *h)
{
	struct job *j = h->data;

	card_release(&j->card);
	verdict_release(&j->verdict);
	recipe_release(&j->recipe);
	for (size_t i = 0; i < RECIPE_LAYERS; i++)
		free(j->volumes[i]);
	free(j->message);
	free(j->io_error);
	free(j->start_error);
	cleanup_closep(&j->log);
	free(j);
}

static void unlink_job(struct job *j)
{
	for (struct job **p = &j->b->jobs; *p; p = &(*p)->next) {
		if (*p == j) {
			*p = j->next;
			return;
		}
	}
}

void job_unref(struct job *j)
{
	if (--j->refs)
		return;
	unlink_job(j);
	uv_close((uv_handle_t *)&j->timer, timer_closed);
}

static void report(struct job *j, const char *recipe)
{
	const struct build_result r = {
	    .build_id = j->id,
	    .space_id = j->space_id,
	    .commit = j->commit,
	    .outcome = j->ending,
	    .message = j->message,
	    .kind = j->verdict.kind,
	    .card = j->has_card ? &j->card : NULL,
	    .recipe = recipe,
	};

	j->b->cb.finished(j->b->cb.ctx, &r);
}

/* What a start will need, frozen. */
static char *release_json(const struct job *j)
{
	const struct recipe *r = &j->recipe;
	json_t *o = json_object();
	json_t *layers = json_array();
	json_t *argv = json_array();
	cleanup_free char *headers = card_response_headers(&j->card, j->b->config->public_url);

	for (size_t i = r->nlayers; i-- > 0;)
		if (j->volumes[i])
			json_array_append_new(layers, json_string(j->volumes[i]));
	for (size_t i = 0; r->argv && r->argv[i]; i++)
		json_array_append_new(argv, json_string(r->argv[i]));
	json_object_set_new(o, "kind", json_string(kind_name(r->kind)));
	json_object_set_new(o, "layers", layers);
	if (*j->base && r->nlayers)
		json_object_set_new(o, "base", json_string(j->base));
	if (r->argv) {
		json_object_set_new(o, "argv", argv);
		json_object_set_new(o, "cwd", json_string("/app"));
		json_object_set_new(o, "port", json_integer(r->port));
	} else {
		json_decref(argv);
		json_object_set_new(o, "site", json_string(j->id));
	}
	json_object_set_new(o, "headers", json_string(headers));
	json_object_set_new(o, "startup_timeout", json_integer(j->card.startup_timeout_s));
	json_object_set_new(o, "title", j->card.title ? json_string(j->card.title) : json_null());
	char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text ? text : xstrdup("{}");
}

static const struct {
	enum build_state state;
	const char *word;
} endings[] = {
    [OUT_BUILT] = {BUILD_SUCCEEDED, "succeeded"},     [OUT_NO_APP_FILE] = {BUILD_FAILED, "failed"},
    [OUT_CONFIG_ERROR] = {BUILD_FAILED, "failed"},    [OUT_FAILED] = {BUILD_FAILED, "failed"},
    [OUT_CANCELLED] = {BUILD_CANCELLED, "cancelled"}, [OUT_SUPERSEDED] = {BUILD_SUPERSEDED, "superseded"},
};

static void on_end(uv_timer_t *t)
{
	struct job *j = t->data;
	struct builder *b = j->b;
	struct err err = ERR_INIT;
	cleanup_free char *recipe = NULL;

	if (b->ending)
		return; /* stays unfinished in the store: the next process takes it up */
	j->reported = true;
	drive_phase(j, NULL);
	drive_cleanup(j);
	if (*j->message)
		logfile_printf(j->log, "===== Build %s: %s =====\n", endings[j->ending].word, j->message);
	if (store_build_set(b->store, j->id, endings[j->ending].state, NULL, j->message, &err) < 0)
		log_warn("build %s: %s", j->id, err.msg);
	queue_remove(&b->queue, j->id);
	if (j->ending == OUT_BUILT)
		recipe = release_json(j);
	report(j, recipe);
	job_unref(j);
	job_kick(b);
}

void job_end(struct job *j, enum build_outcome outcome, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;

	if (j->ended)
		return;
	va_start(ap, fmt);
	buf_addv(&b, fmt, ap);
	va_end(ap);
	j->ended = true;
	j->ending = outcome;
	free(j->message);
	j->message = buf_steal(&b, NULL);
	uv_timer_start(&j->timer, on_end, 0, 0);
}

static void start_jobs(struct builder *b)
{
	const struct queue_item *it;

	b->queue.heavy_max = b->config->builds;
	while (!b->ending && (it = queue_next(&b->queue)) != NULL) {
		struct job *j = b->jobs;
		while (j && (j->ended || strcmp(j->id, it->id) != 0))
			j = j->next;
		if (j)
			drive_begin(j);
	}
}

static void on_kick(uv_timer_t *t)
{
	struct builder *b = t->data;

	if (place_connected(b->place))
		start_jobs(b);
}

void job_kick(struct builder *b)
{
	if (!b->ending)
		uv_timer_start(&b->kick, on_kick, 0, 0);
}

void job_again(struct job *j)
{
	for (size_t i = 0; i < RECIPE_LAYERS; i++) {
		free(j->volumes[i]);
		j->volumes[i] = NULL;
	}
	j->layer = j->step = 0;
	j->interrupted = false;
	j->fallback = false;
	queue_remove(&j->b->queue, j->id);
	queue_again(&j->b->queue, j->id, j->space_id, !j->lights);
	logfile_printf(j->log, "The build was interrupted and begins again\n");
	job_kick(j->b);
}

static struct job *find(const struct builder *b, const char *id)
{
	for (struct job *j = b->jobs; j; j = j->next)
		if (!j->ended && strcmp(j->id, id) == 0)
			return j;
	return NULL;
}

static void on_prepare(uv_timer_t *t)
{
	struct job *j = t->data;

	if (j->ending != NO_ENDING || prepare(j) < 0)
		return;
	j->lights = is_light(j);
	queue_push(&j->b->queue, j->id, j->space_id, !j->lights);
	job_kick(j->b);
	unsigned at = queue_position(&j->b->queue, j->id);
	if (at > 1)
		logfile_printf(j->log, "Waiting in the build queue, position %u\n", at);
}

static struct job *job_new(struct builder *b, const struct space *sp, const struct build *bd, bool factory)
{
	struct job *j = xcalloc(1, sizeof *j);
	cleanup_free char *path = logfile_build(b->config, bd->id);
	char now[32];

	j->b = b;
	j->refs = 1;
	j->ending = NO_ENDING;
	j->slot = sp->slot;
	j->factory = factory;
	snprintf(j->id, sizeof j->id, "%s", bd->id);
	snprintf(j->space_id, sizeof j->space_id, "%s", sp->id);
	snprintf(j->wish, sizeof j->wish, "%s", sp->base);
	snprintf(j->commit, sizeof j->commit, "%s", bd->commit);
	snprintf(j->repo, sizeof j->repo, "%s.git", sp->id);
	j->log = logfile_open(path);
	if (j->log < 0)
		log_warn("%s: %s", path, strerror(-j->log));
	logfile_time(now);
	logfile_printf(j->log, "===== Build Queued at %s / Commit SHA: %.7s =====\n\n", now, j->commit);
	j->next = b->jobs;
	b->jobs = j;
	uv_timer_init(b->loop, &j->timer);
	j->timer.data = j;
	uv_timer_start(&j->timer, on_prepare, 0, 0);
	return j;
}

int builder_add(struct builder *b, const struct space *sp, const char *commit, const char *cause, bool factory,
		char build_id[STORE_ID], struct err *err)
{
	struct build bd = {0};

	if (store_build_add(b->store, sp->id, commit, cause, &bd, err) < 0)
		return -1;
	job_new(b, sp, &bd, factory);
	snprintf(build_id, STORE_ID, "%s", bd.id);
	build_release(&bd);
	return 0;
}

int builder_resume(struct builder *b, const struct space *sp, const struct build *bd, struct err *err)
{
	if (store_build_set(b->store, bd->id, BUILD_QUEUED, "queued", "", err) < 0)
		return -1;
	job_new(b, sp, bd, bd->cause && strcmp(bd->cause, "factory rebuild") == 0);
	return 0;
}

static void cancel(struct job *j, enum build_outcome why)
{
	const char *text = why == OUT_SUPERSEDED ? "a newer commit was pushed" : "cancelled";

	if (j->ended && !j->reported && j->ending == OUT_BUILT) { /* made, but nobody has heard of it yet */
		j->ending = why;
		free(j->message);
		j->message = xstrdup(text);
		return;
	}
	if (j->ending != NO_ENDING)
		return;
	if (j->starting || j->running || j->streaming || j->extracting || j->refs > 1) {
		j->ending = why;
		free(j->message);
		j->message = xstrdup(text);
		drive_kill(j);
	} else {
		job_end(j, why, "%s", text);
	}
}

bool builder_cancel(struct builder *b, const char *build_id, enum build_outcome why)
{
	struct job *j = find(b, build_id);

	if (j)
		cancel(j, why);
	return j != NULL;
}

bool builder_cancel_space(struct builder *b, const char *space_id, enum build_outcome why)
{
	bool any = false;

	for (struct job *j = b->jobs; j; j = j->next) {
		if (!j->reported && strcmp(j->space_id, space_id) == 0) {
			cancel(j, why);
			any = true;
		}
	}
	return any;
}

bool builder_expects(const struct builder *b, const char *space_id)
{
	for (const struct job *j = b->jobs; j; j = j->next)
		if (!j->reported && (j->ending == NO_ENDING || j->ending == OUT_BUILT) &&
		    strcmp(j->space_id, space_id) == 0)
			return true;
	return false;
}

bool builder_busy(const struct builder *b, const char *space_id)
{
	for (const struct job *j = b->jobs; j; j = j->next)
		if (!j->reported && strcmp(j->space_id, space_id) == 0)
			return true;
	return false;
}

unsigned builder_position(const struct builder *b, const char *build_id)
{
	return queue_position(&b->queue, build_id);
}

bool builder_active(const struct builder *b, const char *build_id)
{
	return find(b, build_id) != NULL;
}

static struct job *of_sandbox(const struct builder *b, const char *name)
{
	for (struct job *j = b->jobs; j; j = j->next)
		if ((j->starting || j->running) && strcmp(j->sandbox, name) == 0)
			return j;
	return NULL;
}

bool builder_owns(const struct builder *b, const char *sandbox)
{
	return of_sandbox(b, sandbox) != NULL;
}

void builder_exited(struct builder *b, const char *name, const struct sandbox_exit *e)
{
	struct job *j = of_sandbox(b, name);

	place_forget(b->place, name);
	if (!j)
		return;
	j->exit = *e;
	j->running = false;
	drive_check(j);
}

void builder_limited(struct builder *b, const char *name, const char *sentence)
{
	const struct job *j = of_sandbox(b, name);

	if (!j)
		return;
	cleanup_free char *log = logfile_build(b->config, j->id);
	logfile_append(log, "\n[spaced] %s\n", sentence);
}

void builder_reconcile(struct builder *b, const struct place_status *v, size_t n)
{
	struct job *next;

	for (struct job *j = b->jobs; j; j = next) {
		size_t i = 0;

		next = j->next;
		if (!j->running || j->starting)
			continue;
		while (i < n && strcmp(v[i].name, j->sandbox) != 0)
			i++;
		if (i < n && v[i].running)
			continue;
		if (i < n) {
			builder_exited(b, j->sandbox, &v[i].exit);
			continue;
		}
		j->running = false;
		j->interrupted = true;
		drive_check(j);
	}
	job_kick(b);
}

bool builder_uses_volume(const struct builder *b, const char *volume)
{
	for (const struct job *j = b->jobs; j; j = j->next) {
		if (strcmp(j->top, volume) == 0 || strcmp(j->becomes, volume) == 0)
			return true;
		for (size_t i = 0; i < RECIPE_LAYERS; i++)
			if (j->volumes[i] && strcmp(j->volumes[i], volume) == 0)
				return true;
		/* src-{build id}: renamed, not yet noted down */
		if (strncmp(volume, "src-", 4) == 0 && strcmp(volume + 4, j->id) == 0)
			return true;
	}
	return false;
}

bool builder_uses_base(const struct builder *b, const char *id)
{
	for (const struct job *j = b->jobs; j; j = j->next)
		if (strcmp(j->base, id) == 0)
			return true;
	return false;
}

void builder_shutdown(struct builder *b)
{
	b->ending = true;
	uv_timer_stop(&b->kick);
	for (struct job *j = b->jobs; j; j = j->next)
		if (j->starting || j->running)
			place_stop(b->place, j->sandbox, 0, NULL, NULL);
}

struct builder *builder_new(uv_loop_t *loop, const struct config *config, struct store *store, struct place *place,
			    const struct builder_callbacks *cb)
{
	struct builder *b = xcalloc(1, sizeof *b);

	b->loop = loop;
	b->config = config;
	b->store = store;
	b->place = place;
	b->cb = *cb;
	tools_find_host(&b->tools);
	queue_init(&b->queue, config->builds, LIGHT_BUILDS);
	uv_timer_init(loop, &b->kick);
	b->kick.data = b;
	return b;
}

static void kick_closed(uv_handle_t *h)
{
	struct builder *b = h->data;

	tools_release(&b->tools);
	queue_release(&b->queue);
	free(b);
}

/* Jobs whose calls are still under way stay until these are answered; the process ends right after. */
void builder_free(struct builder *b)
{
	struct job *next;

	b->ending = true;
	for (struct job *j = b->jobs; j; j = next) {
		next = j->next;
		uv_timer_stop(&j->timer);
		if (!j->ended || j->refs == 1) {
			j->ended = true;
			job_unref(j);
		}
	}
	uv_close((uv_handle_t *)&b->kick, kick_closed);
}
