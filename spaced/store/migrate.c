/* Numbered migrations: files schema/NNNN_name.sql carried in the binary, applied in order, each whole or not at all.
 * Called by store_open. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spaced/store/store_int.h"

static int user_version(sqlite3 *db, unsigned *out, struct err *err)
{
	sqlite3_stmt *st = NULL;

	if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_ROW) {
		err_text(err, EIO, "read the schema's number: %s", sqlite3_errmsg(db));
		sqlite3_finalize(st);
		return -1;
	}
	*out = (unsigned)sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return 0;
}

/* "schema/0007_x.sql" -> 7; 0 when it is no migration. */
static unsigned step_number(const char *name)
{
	unsigned long n;
	char *end;

	if (strncmp(name, "schema/", 7) != 0)
		return 0;
	n = strtoul(name + 7, &end, 10);
	return end == name + 11 && *end == '_' && n < 10000 ? (unsigned)n : 0;
}

static int apply(sqlite3 *db, const struct asset *step, unsigned number, struct err *err)
{
	char head[64];

	snprintf(head, sizeof(head), "PRAGMA user_version=%u", number);
	if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK &&
	    sqlite3_exec(db, step->data, NULL, NULL, NULL) == SQLITE_OK &&
	    sqlite3_exec(db, head, NULL, NULL, NULL) == SQLITE_OK &&
	    sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	err_text(err, EIO, "migration %s: %s", step->name, sqlite3_errmsg(db));
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return -1;
}

unsigned store_schema(void)
{
	unsigned last = 0;

	for (const struct asset *a = asset_table; a->name; a++)
		if (step_number(a->name) > last)
			last = step_number(a->name);
	return last;
}

int store_migrate(sqlite3 *db, const struct asset *table, struct err *err)
{
	unsigned have, last = 0;

	if (user_version(db, &have, err) < 0)
		return -1;
	for (const struct asset *a = table; a->name; a++) {
		unsigned n = step_number(a->name);

		/* The second one would never be applied. */
		if (n && n == last)
			return err_text(err, EINVAL, "two migrations have the number of %s", a->name);
		if (n > last)
			last = n;
	}
	if (have > last)
		return err_text(err, ENOTSUP, /* starting again does not help: role_control() */
				"the database has schema %u, this program knows only %u: it was used by a newer "
				"spaced; install that"
				" one, or restore a backup",
				have, last);
	/* The table is sorted by name, and the numbers have four digits. */
	for (const struct asset *a = table; a->name; a++) {
		unsigned n = step_number(a->name);

		if (n <= have)
			continue;
		if (n != have + 1)
			return err_text(err, EINVAL, "migration %u is missing before %s", have + 1, a->name);
		if (apply(db, a, n, err) < 0)
			return -1;
		have = n;
	}
	return 0;
}
