/* The control store's schema: migrations, what is refused, indexes. */
#include "store_rig.h"

static struct asset step(const char *name, const char *sql)
{
	return (struct asset){name, sql, strlen(sql)};
}

static sqlite3 *raw(const char *path)
{
	sqlite3 *d;

	assert_int_equal(sqlite3_open(path, &d), SQLITE_OK);
	return d;
}

static int number(sqlite3 *d, const char *sql)
{
	sqlite3_stmt *st;
	int n = -1;

	if (sqlite3_prepare_v2(d, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return n;
}

static void migrations(void **state)
{
	cleanup_free char *path = xasprintf("%s/m.db", dir);
	struct asset one[] = {step("schema/0001_a.sql", "CREATE TABLE a (x); INSERT INTO a VALUES (1);"), {0}};
	struct asset bad[] = {
	    one[0], step("schema/0002_b.sql", "CREATE TABLE b (x); INSERT INTO nothing VALUES (1);"), {0}};
	struct asset two[] = {
	    one[0], step("schema/0002_b.sql", "CREATE TABLE b (x); INSERT INTO b SELECT x FROM a;"), {0}};
	struct asset gap[] = {
	    one[0], two[1], step("schema/0004_d.sql", "CREATE TABLE d (x);"), step("web/x.html", ""), {0}};
	struct asset twice[] = {one[0], two[1], step("schema/0002_c.sql", "CREATE TABLE c (x);"), {0}};
	sqlite3 *d = raw(path);

	OK(store_migrate(d, one, &err));
	OK(store_migrate(d, one, &err));
	assert_int_equal(number(d, "PRAGMA user_version"), 1);
	/* A step that fails half-way leaves nothing behind. */
	FAILS(EIO, store_migrate(d, bad, &err));
	assert_non_null(strstr(err.msg, "0002_b.sql"));
	assert_int_equal(number(d, "PRAGMA user_version"), 1);
	assert_int_equal(number(d, "SELECT count(*) FROM b"), -1);
	OK(store_migrate(d, two, &err));
	assert_int_equal(number(d, "SELECT x FROM b"), 1);
	FAILS(ENOTSUP, store_migrate(d, one, &err));
	assert_non_null(strstr(err.msg, "newer"));
	FAILS(EINVAL, store_migrate(d, gap, &err));
	assert_non_null(strstr(err.msg, "migration 3 is missing"));
	FAILS(EINVAL, store_migrate(d, twice, &err));
	assert_non_null(strstr(err.msg, "two migrations"));
	sqlite3_close(d);
}

static void newer_schema_is_refused(void **state)
{
	store_close(*state);
	*state = NULL;
	sqlite3 *d = raw(db);
	assert_int_equal(sqlite3_exec(d, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(d);
	err = ERR_INIT;
	assert_null(store_open(db, &err));
	assert_non_null(strstr(err.msg, "newer spaced"));
}

static void refuses_what_is_no_database(void **state)
{
	cleanup_free char *junk = xasprintf("%s/junk.db", dir), *none = xasprintf("%s/none/x.db", dir);

	assert_int_equal(io_write_file(AT_FDCWD, junk, "this is not a database, at all............", 40, 0600), 0);
	err = ERR_INIT;
	assert_null(store_open(junk, &err));
	assert_non_null(strstr(err.msg, "junk.db"));
	assert_null(store_open(none, &err));
	assert_int_equal(err.code, ENOENT);
}

/* 1,000 Spaces: every query of the hot paths is answered from an index. */
static void plans_use_indexes(void **state)
{
	static const char *const hot[] = {
	    "SELECT t.id FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = ?",
	    "SELECT s.id FROM spaces s JOIN users u ON u.id = s.owner_id WHERE u.name = ? AND s.name = ?",
	    "SELECT 1 FROM spaces WHERE label = ?",
	    "SELECT id FROM builds WHERE space_id = ? ORDER BY queued DESC, rowid DESC LIMIT ?",
	    "SELECT id FROM builds WHERE state IN ('queued', 'running') ORDER BY queued, rowid",
	    ("SELECT s.id FROM spaces s JOIN users u ON u.id = s.owner_id WHERE s.visibility = 0"
	     " ORDER BY s.created DESC, s.id DESC LIMIT 50"),
	};
	struct store *s = *state;

	for (size_t i = 0; i < sizeof(hot) / sizeof(hot[0]); i++) {
		cleanup_free char *sql = xasprintf("EXPLAIN QUERY PLAN %s", hot[i]);
		sqlite3_stmt *st;
		assert_int_equal(sqlite3_prepare_v2(s->db, sql, -1, &st, NULL), SQLITE_OK);
		while (sqlite3_step(st) == SQLITE_ROW) {
			const char *plan = (const char *)sqlite3_column_text(st, 3);
			if (strstr(plan, "TEMP B-TREE") || (strstr(plan, "SCAN") && !strstr(plan, "USING")))
				fail_msg("%s: %s", hot[i], plan);
		}
		sqlite3_finalize(st);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(migrations),
	    T(newer_schema_is_refused),
	    T(refuses_what_is_no_database),
	    T(plans_use_indexes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
