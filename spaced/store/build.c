/* Builds, the releases they made, and layers, of the control store; see store.h. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

static const char *const state_names[] = {
    [BUILD_QUEUED] = "queued", [BUILD_RUNNING] = "running",	[BUILD_SUCCEEDED] = "succeeded",
    [BUILD_FAILED] = "failed", [BUILD_CANCELLED] = "cancelled", [BUILD_SUPERSEDED] = "superseded",
};
#define STATES (sizeof(state_names) / sizeof(state_names[0]))

const char *build_state_name(enum build_state st)
{
	return state_names[st];
}

void build_release(struct build *b)
{
	free(b->cause);
	free(b->phase);
	free(b->error);
	*b = (struct build){0};
}

#define BUILD_COLUMNS                                                                                                  \
	"SELECT id, space_id, commit_id, cause, state, phase, error, queued, started, finished FROM builds "

static void read_build(sqlite3_stmt *st, struct build *b)
{
	const char *state = (const char *)sqlite3_column_text(st, 4);

	*b = (struct build){.state = BUILD_FAILED};
	store_copy(st, 0, b->id, sizeof(b->id));
	store_copy(st, 1, b->space_id, sizeof(b->space_id));
	store_copy(st, 2, b->commit, sizeof(b->commit));
	b->cause = store_text(st, 3);
	for (size_t i = 0; state && i < STATES; i++)
		if (!strcmp(state, state_names[i]))
			b->state = (enum build_state)i;
	b->phase = store_text(st, 5);
	b->error = store_text(st, 6);
	b->queued = store_u64(st, 7);
	b->started = store_u64(st, 8);
	b->finished = store_u64(st, 9);
}

int store_build_by_id(struct store *s, const char *id, struct build *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, BUILD_COLUMNS "WHERE id = ?", "s", id);
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such build");
	if (rc < 0)
		return -1;
	read_build(st, out);
	return 0;
}

int store_build_add(struct store *s, const char *space_id, const char *commit, const char *cause, struct build *out,
		    struct err *err)
{
	char id[STORE_ID];

	io_random_hex(id, 12);
	if (store_exec(s, err, NULL,
		       "INSERT INTO builds (id, space_id, commit_id, cause, state, queued) VALUES (?, ?, ?, ?, ?, ?)",
		       "sssssi", id, space_id, commit, cause, state_names[BUILD_QUEUED], (int64_t)io_wall_ms()) < 0)
		return err->code == EBUSY ? err_text(err, ENOENT, "no such Space") : -1;
	return store_build_by_id(s, id, out, err);
}

static int build_list(struct store *s, sqlite3_stmt *query, struct build **out, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = query;
	struct build *list = NULL;
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		read_build(st, &list[(*n)++]);
	}
	*out = list;
	return rc;
}

int store_build_list(struct store *s, const char *space_id, size_t limit, struct build **out, size_t *n,
		     struct err *err)
{
	int64_t max = limit ? (int64_t)limit : -1;

	if (space_id)
		return build_list(
		    s,
		    store_query(s, err, BUILD_COLUMNS "WHERE space_id = ? ORDER BY queued DESC, rowid DESC LIMIT ?",
				"si", space_id, max),
		    out, n, err);
	return build_list(s, store_query(s, err, BUILD_COLUMNS "ORDER BY queued DESC, rowid DESC LIMIT ?", "i", max),
			  out, n, err);
}

int store_build_unfinished(struct store *s, struct build **out, size_t *n, struct err *err)
{
	return build_list(
	    s, store_query(s, err, BUILD_COLUMNS "WHERE state IN ('queued', 'running') ORDER BY queued, rowid", ""),
	    out, n, err);
}

int store_build_set(struct store *s, const char *id, enum build_state st, const char *phase, const char *error,
		    struct err *err)
{
	int64_t now = (int64_t)io_wall_ms();

	/* A build that goes back to the queue (control died under it) has not started. */
	return store_exec_one(
	    s, err, "build",
	    "UPDATE builds SET state = ?1, phase = coalesce(?2, phase), error = coalesce(?3, ''),"
	    " started = CASE ?1 WHEN 'queued' THEN 0 WHEN 'running' THEN iif(started = 0, ?4, started)"
	    "  ELSE started END,"
	    " finished = CASE WHEN ?1 IN ('queued', 'running') THEN 0 WHEN finished = 0 THEN ?4 ELSE finished END"
	    " WHERE id = ?5",
	    "sssis", state_names[st], phase, error, now, id);
}

/* ---- releases ---- */

#define RELEASE_COLUMNS "SELECT id, space_id, build_id, commit_id, recipe, created FROM releases "

void release_release(struct release *r)
{
	free(r->recipe);
	*r = (struct release){0};
}

static void read_release(sqlite3_stmt *st, struct release *r)
{
	*r = (struct release){0};
	store_copy(st, 0, r->id, sizeof(r->id));
	store_copy(st, 1, r->space_id, sizeof(r->space_id));
	store_copy(st, 2, r->build_id, sizeof(r->build_id));
	store_copy(st, 3, r->commit, sizeof(r->commit));
	r->recipe = store_text(st, 4);
	r->created = store_u64(st, 5);
}

int store_release_by_id(struct store *s, const char *id, struct release *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, RELEASE_COLUMNS "WHERE id = ?", "s", id);
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such release");
	if (rc < 0)
		return -1;
	read_release(st, out);
	return 0;
}

int store_release_add(struct store *s, const char *space_id, const char *build_id, const char *commit,
		      const char *recipe, struct release *out, struct err *err)
{
	char id[STORE_ID];

	io_random_hex(id, 12);
	if (store_exec(
		s, err, NULL,
		"INSERT INTO releases (id, space_id, build_id, commit_id, recipe, created) VALUES (?, ?, ?, ?, ?, ?)",
		"sssssi", id, space_id, build_id, commit, recipe, (int64_t)io_wall_ms()) < 0)
		return err->code == EBUSY ? err_text(err, ENOENT, "no such Space or build") : -1;
	return store_release_by_id(s, id, out, err);
}

int store_release_list(struct store *s, const char *space_id, struct release **out, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err, RELEASE_COLUMNS "WHERE space_id = ? ORDER BY created DESC, rowid DESC", "s", space_id);
	struct release *list = NULL;
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		read_release(st, &list[(*n)++]);
	}
	*out = list;
	return rc;
}

int store_release_remove(struct store *s, const char *id, struct err *err)
{
	return store_exec_one(s, err, "release", "DELETE FROM releases WHERE id = ?", "s", id);
}

/* ---- layers ---- */

void layer_release(struct layer *l)
{
	free(l->key);
	free(l->volume);
	*l = (struct layer){0};
}

static void read_layer(sqlite3_stmt *st, struct layer *l)
{
	l->key = store_text(st, 0);
	l->volume = store_text(st, 1);
	l->created = store_u64(st, 2);
	l->used = store_u64(st, 3);
}

int store_layer_get(struct store *s, const char *key, struct layer *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err, "UPDATE layers SET used = ? WHERE key = ? RETURNING key, volume, created, used", "is",
			(int64_t)io_wall_ms(), key);
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such layer");
	if (rc < 0)
		return -1;
	read_layer(st, out);
	if (store_step(s, st, err) < 0) {
		layer_release(out);
		return -1;
	}
	return 0;
}

int store_layer_add(struct store *s, const char *key, const char *volume, struct err *err)
{
	if (store_exec(s, err, NULL, "INSERT INTO layers (key, volume, created, used) VALUES (?1, ?2, ?3, ?3)", "ssi",
		       key, volume, (int64_t)io_wall_ms()) < 0)
		return err->code == EEXIST ? err_text(err, EEXIST, "the layer `%s` already exists", volume) : -1;
	return 0;
}

int store_layer_remove(struct store *s, const char *key, struct err *err)
{
	return store_exec_one(s, err, "layer", "DELETE FROM layers WHERE key = ?", "s", key);
}

int store_layer_list(struct store *s, struct layer **out, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err, "SELECT key, volume, created, used FROM layers ORDER BY used DESC", "");
	struct layer *list = NULL;
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		read_layer(st, &list[(*n)++]);
	}
	*out = list;
	return rc;
}
