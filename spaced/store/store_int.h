/* What the files of store/ share: the connection, its cache of prepared statements, and short ways to bind and read. */
#ifndef SPACED_STORE_STORE_INT_H
#define SPACED_STORE_STORE_INT_H

#include <sqlite3.h>
#include <stdarg.h>
#include <uthash.h>

#include "base/assets.h"
#include "spaced/store/store.h"

#define STORE_KEY 32 /* bytes of token.key; crypto_generichash_KEYBYTES */

/* One per SQL text. Looked up by the literal's address: each call site has its own. */
struct store_stmt {
	const char *sql;
	sqlite3_stmt *st;
	UT_hash_handle hh;
};

struct store {
	sqlite3 *db;
	struct store_stmt *stmts;
	bool in_transaction;
	unsigned char key[STORE_KEY];
};

/* Fills `err` from the connection's last error: EEXIST for a broken UNIQUE, EBUSY for FOREIGN KEY, ENOSPC, EIO. */
int store_fail(struct store *s, const char *what, struct err *err);

/* Arguments by letters of `types`: s text (NULL binds NULL), i int64_t, b pointer and size_t. */
/* A statement ready to be stepped; NULL with err. Give it back with store_done, always: an open read holds the WAL. */
sqlite3_stmt *store_query(struct store *s, struct err *err, const char *sql, const char *types, ...);
void store_done(sqlite3_stmt *st);
static inline void store_donep(sqlite3_stmt **st)
{
	store_done(*st);
}
#define cleanup_stmt __attribute__((cleanup(store_donep)))
/* 1: a row; 0: no more; -1: err. */
int store_step(struct store *s, sqlite3_stmt *st, struct err *err);
/* Runs a change to its end. 0, -1. `changed` (may be NULL) gets the number of rows. */
int store_exec(struct store *s, struct err *err, int *changed, const char *sql, const char *types, ...);
/* A change that must hit one row: ENOENT with "no such `what`" otherwise. */
int store_exec_one(struct store *s, struct err *err, const char *what, const char *sql, const char *types, ...);

/* Columns. Text is copied; NULL reads as "". */
char *store_text(sqlite3_stmt *st, int col);
void store_copy(sqlite3_stmt *st, int col, char *dst, size_t size);
uint64_t store_u64(sqlite3_stmt *st, int col);

/* Applies the steps of `table` named schema/NNNN_*.sql above PRAGMA user_version. */
int store_migrate(sqlite3 *db, const struct asset *table, struct err *err);
/* Reads or makes `dir`/token.key. */
int store_load_key(struct store *s, const char *dir, struct err *err);

#endif
