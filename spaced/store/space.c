/* Spaces of the control store; see store.h. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "spaced/names.h"
#include "spaced/store/store_int.h"

static const char *const stage_names[SPACE_STAGES] = {
    [STAGE_NO_APP_FILE] = "NO_APP_FILE",
    [STAGE_CONFIG_ERROR] = "CONFIG_ERROR",
    [STAGE_BUILDING] = "BUILDING",
    [STAGE_BUILD_ERROR] = "BUILD_ERROR",
    [STAGE_APP_STARTING] = "APP_STARTING",
    [STAGE_RUNNING] = "RUNNING",
    [STAGE_RUNNING_BUILDING] = "RUNNING_BUILDING",
    [STAGE_RUNNING_APP_STARTING] = "RUNNING_APP_STARTING",
    [STAGE_RUNTIME_ERROR] = "RUNTIME_ERROR",
    [STAGE_STOPPED] = "STOPPED",
    [STAGE_PAUSED] = "PAUSED",
    [STAGE_SLEEPING] = "SLEEPING",
    [STAGE_DELETING] = "DELETING",
};

const char *space_stage_name(enum space_stage stage)
{
	return stage_names[stage];
}

static enum space_stage stage_of(sqlite3_stmt *st, int col)
{
	const char *v = (const char *)sqlite3_column_text(st, col);

	for (size_t i = 0; v && i < SPACE_STAGES; i++)
		if (!strcmp(v, stage_names[i]))
			return (enum space_stage)i;
	return STAGE_STOPPED; /* written by hand or by nobody: the harmless one */
}

void space_release(struct space *sp)
{
	free(sp->owner);
	free(sp->name);
	free(sp->label);
	free(sp->stage_message);
	free(sp->default_branch);
	free(sp->sdk);
	free(sp->card);
	free(sp->release_id);
	free(sp->egress);
	free(sp->egress_list);
	free(sp->base);
	free(sp->sticky);
	*sp = (struct space){0};
}

static const char *const visibilities[] = {
    [SPACE_PUBLIC] = "public", [SPACE_PRIVATE] = "private", [SPACE_PROTECTED] = "protected"};

const char *space_visibility_name(enum space_visibility v)
{
	return visibilities[v];
}

bool space_visibility_of(const char *name, enum space_visibility *out)
{
	for (size_t i = 0; i < sizeof(visibilities) / sizeof(visibilities[0]); i++)
		if (!strcmp(name, visibilities[i])) {
			*out = (enum space_visibility)i;
			return true;
		}
	return false;
}

#define SPACE_COLUMNS                                                                                                  \
	"SELECT s.id, s.owner_id, u.name, s.name, s.label, s.visibility, s.stage, s.stage_message, s.default_branch,"  \
	" s.slot, s.sdk, s.card, s.release_id, s.generation, s.created, s.modified, s.serving,"                        \
	" s.egress, s.egress_list, s.storage, s.base, s.volume, s.sleep_s, s.rate, s.replicas, s.sticky"               \
	" FROM spaces s JOIN users u ON u.id = s.owner_id "

static void read_space(sqlite3_stmt *st, struct space *sp)
{
	*sp = (struct space){0};
	store_copy(st, 0, sp->id, sizeof(sp->id));
	store_copy(st, 1, sp->owner_id, sizeof(sp->owner_id));
	sp->owner = store_text(st, 2);
	sp->name = store_text(st, 3);
	sp->label = store_text(st, 4);
	/* An unknown one, of a later version, is the strictest. */
	uint64_t v = store_u64(st, 5);
	sp->visibility = v <= SPACE_PROTECTED ? (enum space_visibility)v : SPACE_PRIVATE;
	sp->stage = stage_of(st, 6);
	sp->stage_message = store_text(st, 7);
	sp->default_branch = store_text(st, 8);
	sp->slot = (uint32_t)store_u64(st, 9);
	sp->sdk = store_text(st, 10);
	sp->card = store_text(st, 11);
	sp->release_id = store_text(st, 12);
	sp->generation = (uint32_t)store_u64(st, 13);
	sp->created = store_u64(st, 14);
	sp->modified = store_u64(st, 15);
	sp->serving = (uint32_t)store_u64(st, 16);
	sp->egress = store_text(st, 17);
	sp->egress_list = store_text(st, 18);
	sp->storage = store_u64(st, 19);
	sp->base = store_text(st, 20);
	sp->volume = (uint32_t)store_u64(st, 21);
	sp->sleep_s = (int32_t)sqlite3_column_int(st, 22);
	sp->rate = (int64_t)store_u64(st, 23);
	sp->replicas = (uint32_t)store_u64(st, 24);
	sp->sticky = store_text(st, 25);
}

static int one_space(struct store *s, sqlite3_stmt *query, struct space *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = query;
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such Space");
	if (rc < 0)
		return -1;
	read_space(st, out);
	return 0;
}

int store_space_by_id(struct store *s, const char *id, struct space *out, struct err *err)
{
	return one_space(s, store_query(s, err, SPACE_COLUMNS "WHERE s.id = ?", "s", id), out, err);
}

int store_space_by_name(struct store *s, const char *owner, const char *name, struct space *out, struct err *err)
{
	return one_space(s, store_query(s, err, SPACE_COLUMNS "WHERE u.name = ? AND s.name = ?", "ss", owner, name),
			 out, err);
}

/* ---- adding: a free host label, a free slot ---- */

static int label_taken(struct store *s, const char *label, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, "SELECT 1 FROM spaces WHERE label = ?", "s", label);

	return st ? store_step(s, st, err) : -1;
}

/* "a-b"/"c" and "a"/"b-c" want the same label. The first comer has it plain, the next one with a hash of its names, and
 * if somebody sits on that one on purpose, with random digits. */
static int free_label(struct store *s, const char *owner, const char *name, char label[NAME_LABEL_MAX + 1],
		      struct err *err)
{
	for (int i = 0; i < 8; i++) {
		name_host_label(owner, name, i > 0, label);
		if (i > 1)
			io_random_hex(label + strlen(label) - 8, 4);
		int rc = label_taken(s, label, err);
		if (rc <= 0)
			return rc;
	}
	return err_text(err, EEXIST, "no free host name for %s/%s", owner, name);
}

int store_space_add(struct store *s, const char *owner_id, const char *name, struct space *out, struct err *err)
{
	char id[STORE_ID], label[NAME_LABEL_MAX + 1];
	struct user owner = {0};
	int64_t now = (int64_t)io_wall_ms();
	int rc;

	if (store_user_by_id(s, owner_id, &owner, err) < 0)
		return -1;
	rc = free_label(s, owner.name, name, label, err);
	io_random_hex(id, 12);
	/* The lowest free slot: uid ranges are used again, or the host would run out of them. */
	if (rc == 0)
		rc = store_exec(
		    s, err, NULL,
		    "INSERT INTO spaces (id, owner_id, name, label, stage, slot, created, modified) VALUES (?1, ?2, ?3,"
		    " ?4, ?5, (SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM spaces WHERE slot = 1) THEN 1 ELSE"
		    "  (SELECT min(a.slot) + 1 FROM spaces a WHERE NOT EXISTS"
		    "   (SELECT 1 FROM spaces b WHERE b.slot = a.slot + 1)) END), ?6, ?6)",
		    "sssssi", id, owner_id, name, label, stage_names[STAGE_NO_APP_FILE], now);
	if (rc < 0 && err->code == EEXIST)
		err_text(err, EEXIST, "the Space `%s/%s` already exists", owner.name, name);
	user_release(&owner);
	return rc < 0 ? -1 : store_space_by_id(s, id, out, err);
}

/* ---- lists ---- */

/* ?1 viewer ("*": all), ?2 search, ?3 cursor, ?4 limit, ?5 owner. Two texts, so that each has its index. */
#define LIST_WHERE                                                                                                     \
	"WHERE (?1 = '*' OR s.visibility = 0 OR s.owner_id = ?1)"                                                      \
	" AND (?2 IS NULL OR instr(lower(u.name || '/' || s.name), lower(?2)) > 0)"                                    \
	" AND (?3 IS NULL OR (s.created, s.id) < (SELECT created, id FROM spaces WHERE id = ?3)) "
#define LIST_ORDER "ORDER BY s.created DESC, s.id DESC LIMIT ?4"

int store_space_list(struct store *s, const struct space_filter *f, struct space **out, size_t *n, struct err *err)
{
	const char *viewer = f->viewer_id ? f->viewer_id : "";
	int64_t limit = f->limit ? (int64_t)f->limit : -1;
	struct space *list = NULL;
	size_t cap = 0;
	int rc = -1;

	*out = NULL;
	*n = 0;
	cleanup_stmt sqlite3_stmt *st =
	    f->owner_id ? store_query(s, err, SPACE_COLUMNS LIST_WHERE "AND s.owner_id = ?5 " LIST_ORDER, "sssis",
				      viewer, f->search, f->after_id, limit, f->owner_id)
			: store_query(s, err, SPACE_COLUMNS LIST_WHERE LIST_ORDER, "sssi", viewer, f->search,
				      f->after_id, limit);
	while (st && (rc = store_step(s, st, err)) > 0) {
		if (*n == cap) {
			cap = cap ? cap * 2 : 16;
			list = xreallocarray(list, cap, sizeof(*list));
		}
		read_space(st, &list[(*n)++]);
	}
	*out = list;
	return rc;
}

int store_space_names(struct store *s, char ***out, size_t *n, struct err *err)
{
	char **list = NULL;
	size_t cap = 0;
	int rc = -1;

	*n = 0;
	cleanup_stmt sqlite3_stmt *st = store_query(
	    s, err,
	    "SELECT u.name || '/' || s.name AS full FROM spaces s JOIN users u ON u.id = s.owner_id ORDER BY full", "");
	while (st && (rc = store_step(s, st, err)) > 0) {
		if (*n == cap) {
			cap = cap ? cap * 2 : 64;
			list = xreallocarray(list, cap, sizeof *list);
		}
		list[(*n)++] = store_text(st, 0);
	}
	*out = list;
	if (rc < 0)
		store_names_free(list, *n);
	return rc;
}

void store_names_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

int store_stage_counts(struct store *s, uint64_t spaces[SPACE_STAGES], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, "SELECT stage, count(*) FROM spaces GROUP BY stage", "");
	int rc = -1;

	memset(spaces, 0, SPACE_STAGES * sizeof *spaces);
	while (st && (rc = store_step(s, st, err)) > 0)
		spaces[stage_of(st, 0)] += store_u64(st, 1);
	return rc;
}

/* ---- changes ---- */

int store_space_set_stage(struct store *s, const char *id, enum space_stage stage, const char *message, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET stage = ?, stage_message = ? WHERE id = ?", "sss",
			      stage_names[stage], message ? message : "", id);
}

int store_space_set_card(struct store *s, const char *id, const char *sdk, const char *card_json, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET sdk = ?, card = ?, modified = ? WHERE id = ?", "ssis",
			      sdk ? sdk : "", card_json ? card_json : "{}", (int64_t)io_wall_ms(), id);
}

int store_space_set_release(struct store *s, const char *id, const char *release_id, uint32_t serving, struct err *err)
{
	return store_exec_one(s, err, "Space",
			      "UPDATE spaces SET release_id = nullif(?, ''), serving = ?, modified = ? WHERE id = ?",
			      "siis", release_id, (int64_t)serving, (int64_t)io_wall_ms(), id);
}

int store_space_set_visibility(struct store *s, const char *id, enum space_visibility v, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET visibility = ?, modified = ? WHERE id = ?", "iis",
			      (int64_t)v, (int64_t)io_wall_ms(), id);
}

int store_space_set_storage(struct store *s, const char *id, uint64_t bytes, struct err *err)
{
	return store_exec_one(s, err, "Space",
			      "UPDATE spaces SET storage = ?1, volume = volume + (?1 = 0) WHERE id = ?2", "is",
			      (int64_t)bytes, id);
}

int store_space_set_egress(struct store *s, const char *id, const char *egress, const char *list, struct err *err)
{
	return store_exec_one(s, err, "Space",
			      "UPDATE spaces SET egress = ?, egress_list = ?, modified = ? WHERE id = ?", "ssis",
			      egress, list, (int64_t)io_wall_ms(), id);
}

int store_space_set_sleep(struct store *s, const char *id, int32_t seconds, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET sleep_s = ?, modified = ? WHERE id = ?", "iis",
			      (int64_t)seconds, (int64_t)io_wall_ms(), id);
}

int store_space_set_rate(struct store *s, const char *id, int64_t rate, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET rate = ? WHERE id = ?", "is", rate, id);
}

int store_space_set_base(struct store *s, const char *id, const char *base, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET base = ?, modified = ? WHERE id = ?", "sis", base,
			      (int64_t)io_wall_ms(), id);
}

int store_space_next_generation(struct store *s, const char *id, uint32_t *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(
	    s, err, "UPDATE spaces SET generation = generation + 1 WHERE id = ? RETURNING generation", "s", id);
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such Space");
	if (rc < 0)
		return -1;
	*out = (uint32_t)store_u64(st, 0);
	/* The change is made when the statement has been run to its end. */
	return store_step(s, st, err) < 0 ? -1 : 0;
}

int store_space_remove(struct store *s, const char *id, struct err *err)
{
	return store_exec_one(s, err, "Space", "DELETE FROM spaces WHERE id = ?", "s", id);
}
