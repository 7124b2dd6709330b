/* Users of the control store; see store.h. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

#define USER_COLUMNS "SELECT id, name, admin, created FROM users "

void user_release(struct user *u)
{
	free(u->name);
	*u = (struct user){0};
}

static void read_user(sqlite3_stmt *st, struct user *u)
{
	*u = (struct user){0};
	store_copy(st, 0, u->id, sizeof(u->id));
	u->name = store_text(st, 1);
	u->admin = store_u64(st, 2) != 0;
	u->created = store_u64(st, 3);
}

int store_user_add(struct store *s, const char *name, bool admin, struct user *out, struct err *err)
{
	struct user u = {.admin = admin, .created = io_wall_ms()};

	io_random_hex(u.id, 12);
	if (store_exec(s, err, NULL, "INSERT INTO users (id, name, admin, created) VALUES (?, ?, ?, ?)", "ssii", u.id,
		       name, (int64_t)admin, (int64_t)u.created) < 0)
		return err->code == EEXIST ? err_text(err, EEXIST, "the user `%s` already exists", name) : -1;
	u.name = xstrdup(name);
	*out = u;
	return 0;
}

static int one_user(struct store *s, sqlite3_stmt *query, const char *what, struct user *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = query;
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no user `%s`", what);
	if (rc < 0)
		return -1;
	read_user(st, out);
	return 0;
}

int store_user_by_name(struct store *s, const char *name, struct user *out, struct err *err)
{
	return one_user(s, store_query(s, err, USER_COLUMNS "WHERE name = ?", "s", name), name, out, err);
}

int store_user_by_id(struct store *s, const char *id, struct user *out, struct err *err)
{
	return one_user(s, store_query(s, err, USER_COLUMNS "WHERE id = ?", "s", id), id, out, err);
}

int store_user_list(struct store *s, struct user **out, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, USER_COLUMNS "ORDER BY name", "");
	struct user *list = NULL;
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		read_user(st, &list[(*n)++]);
	}
	*out = list;
	return rc;
}

int store_user_remove(struct store *s, const char *id, struct err *err)
{
	if (store_exec_one(s, err, "user", "DELETE FROM users WHERE id = ?", "s", id) == 0)
		return 0;
	return err->code == EBUSY ? err_text(err, EBUSY, "the user still owns Spaces: delete those first") : -1;
}
