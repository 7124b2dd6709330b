/* Opening the control store, transactions, and the short ways to run SQL that the other files of store/ use. Called by
 * the control role only; see store.h. */
#include "spaced/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/store/store_int.h"

int store_fail(struct store *s, const char *what, struct err *err)
{
	int ext = sqlite3_extended_errcode(s->db), code = EIO;

	if (ext == SQLITE_CONSTRAINT_UNIQUE || ext == SQLITE_CONSTRAINT_PRIMARYKEY)
		code = EEXIST;
	else if (ext == SQLITE_CONSTRAINT_FOREIGNKEY || ext == SQLITE_CONSTRAINT_TRIGGER)
		code = EBUSY;
	else if ((ext & 0xff) == SQLITE_BUSY || (ext & 0xff) == SQLITE_LOCKED)
		code = EAGAIN;
	else if ((ext & 0xff) == SQLITE_FULL)
		code = ENOSPC;
	else if ((ext & 0xff) == SQLITE_NOMEM)
		code = ENOMEM;
	return err_text(err, code, "%s: %s", what, sqlite3_errmsg(s->db));
}

static sqlite3_stmt *stmt_get(struct store *s, const char *sql, struct err *err)
{
	struct store_stmt *e;

	HASH_FIND_PTR(s->stmts, &sql, e);
	if (!e) {
		sqlite3_stmt *st;

		if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK) {
			store_fail(s, "store: prepare", err);
			return NULL;
		}
		e = xcalloc(1, sizeof(*e));
		e->sql = sql;
		e->st = st;
		HASH_ADD_PTR(s->stmts, sql, e);
	}
	return e->st;
}

static int bind_all(sqlite3_stmt *st, const char *types, va_list ap)
{
	int rc = SQLITE_OK;

	for (int i = 1; types[i - 1] && rc == SQLITE_OK; i++) {
		if (types[i - 1] == 's') {
			const char *v = va_arg(ap, const char *);
			rc = v ? sqlite3_bind_text(st, i, v, -1, SQLITE_TRANSIENT) : sqlite3_bind_null(st, i);
		} else if (types[i - 1] == 'b') {
			const void *p = va_arg(ap, const void *);
			rc = sqlite3_bind_blob64(st, i, p, va_arg(ap, size_t), SQLITE_TRANSIENT);
		} else {
			rc = sqlite3_bind_int64(st, i, va_arg(ap, int64_t));
		}
	}
	return rc;
}

static sqlite3_stmt *query_v(struct store *s, struct err *err, const char *sql, const char *types, va_list ap)
{
	sqlite3_stmt *st = stmt_get(s, sql, err);

	if (st && bind_all(st, types, ap) != SQLITE_OK) {
		store_fail(s, "store: bind", err);
		store_done(st);
		return NULL;
	}
	return st;
}

sqlite3_stmt *store_query(struct store *s, struct err *err, const char *sql, const char *types, ...)
{
	va_list ap;

	va_start(ap, types);
	sqlite3_stmt *st = query_v(s, err, sql, types, ap);
	va_end(ap);
	return st;
}

void store_done(sqlite3_stmt *st)
{
	if (!st)
		return;
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
}

int store_step(struct store *s, sqlite3_stmt *st, struct err *err)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : store_fail(s, "store", err);
}

static int exec_v(struct store *s, struct err *err, int *changed, const char *sql, const char *types, va_list ap)
{
	cleanup_stmt sqlite3_stmt *st = query_v(s, err, sql, types, ap);

	if (!st || store_step(s, st, err) < 0)
		return -1;
	if (changed)
		*changed = sqlite3_changes(s->db);
	return 0;
}

int store_exec(struct store *s, struct err *err, int *changed, const char *sql, const char *types, ...)
{
	va_list ap;

	va_start(ap, types);
	int rc = exec_v(s, err, changed, sql, types, ap);
	va_end(ap);
	return rc;
}

int store_exec_one(struct store *s, struct err *err, const char *what, const char *sql, const char *types, ...)
{
	va_list ap;
	int changed = 0;

	va_start(ap, types);
	int rc = exec_v(s, err, &changed, sql, types, ap);
	va_end(ap);
	if (rc == 0 && changed == 0)
		return err_text(err, ENOENT, "no such %s", what);
	return rc;
}

char *store_text(sqlite3_stmt *st, int col)
{
	const char *v = (const char *)sqlite3_column_text(st, col);

	return xstrdup(v ? v : "");
}

void store_copy(sqlite3_stmt *st, int col, char *dst, size_t size)
{
	const char *v = (const char *)sqlite3_column_text(st, col);

	snprintf(dst, size, "%s", v ? v : "");
}

uint64_t store_u64(sqlite3_stmt *st, int col)
{
	return (uint64_t)sqlite3_column_int64(st, col);
}

/* ---- open and close ---- */

static int set_up(struct store *s, struct err *err)
{
	/* synchronous=FULL: a push that was answered "ok" is on disk, also after a power cut. */
	static const char *const pragmas[] = {
	    "PRAGMA journal_mode=WAL",	     "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON",
	    "PRAGMA trusted_schema=OFF",     "PRAGMA secure_delete=ON", "PRAGMA temp_store=MEMORY",
	    "PRAGMA wal_autocheckpoint=500",
	};

	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, 5000);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	for (size_t i = 0; i < sizeof(pragmas) / sizeof(pragmas[0]); i++)
		if (sqlite3_exec(s->db, pragmas[i], NULL, NULL, NULL) != SQLITE_OK)
			return store_fail(s, pragmas[i], err);
	return 0;
}

struct store *store_open(const char *path, struct err *err)
{
	struct store *s = xcalloc(1, sizeof(*s));
	cleanup_free char *copy = xstrdup(path);
	int fd;

	/* Made here so that it is private from its first moment; the WAL takes over the mode. */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		err_set(err, errno, "open the store `%s`", path);
		free(s);
		return NULL;
	}
	close(fd);
	if (sodium_init() < 0) {
		err_text(err, EIO, "libsodium cannot start");
		free(s);
		return NULL;
	}
	if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		store_fail(s, "open", err);
	else if (set_up(s, err) == 0 && store_migrate(s->db, asset_table, err) == 0 &&
		 store_load_key(s, dirname(copy), err) == 0)
		return s;
	err_prefix(err, "store `%s`", path);
	store_close(s);
	return NULL;
}

void store_close(struct store *s)
{
	struct store_stmt *e, *tmp;

	if (!s)
		return;
	HASH_ITER(hh, s->stmts, e, tmp)
	{
		HASH_DEL(s->stmts, e);
		sqlite3_finalize(e->st);
		free(e);
	}
	sqlite3_close(s->db);
	sodium_memzero(s->key, sizeof(s->key));
	free(s);
}

/* ---- transactions ---- */

int store_begin(struct store *s, struct err *err)
{
	if (s->in_transaction)
		return err_text(err, EDEADLK, "store: a transaction inside a transaction");
	if (store_exec(s, err, NULL, "BEGIN IMMEDIATE", "") < 0)
		return -1;
	s->in_transaction = true;
	return 0;
}

int store_commit(struct store *s, struct err *err)
{
	if (store_exec(s, err, NULL, "COMMIT", "") < 0) {
		store_rollback(s);
		return -1;
	}
	s->in_transaction = false;
	return 0;
}

void store_rollback(struct store *s)
{
	struct err err = ERR_INIT;

	/* Some failures (disk full) have rolled back already: SQLite says so by being in autocommit. */
	if (s->in_transaction && !sqlite3_get_autocommit(s->db) && store_exec(s, &err, NULL, "ROLLBACK", "") < 0)
		log_error("store: rollback: %s", err.msg);
	s->in_transaction = false;
}

int store_counts(struct store *s, struct store_counts *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(
	    s, err,
	    "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM spaces),"
	    " (SELECT count(*) FROM spaces WHERE stage IN ('RUNNING', 'RUNNING_BUILDING', 'RUNNING_APP_STARTING')),"
	    " (SELECT count(*) FROM builds WHERE state = 'queued'),"
	    " (SELECT count(*) FROM builds WHERE state = 'running')",
	    "");

	if (!st || store_step(s, st, err) < 0)
		return -1;
	*out = (struct store_counts){
	    .users = store_u64(st, 0),
	    .spaces = store_u64(st, 1),
	    .running = store_u64(st, 2),
	    .builds_queued = store_u64(st, 3),
	    .builds_running = store_u64(st, 4),
	};
	return 0;
}
