/* What happened, for people; see store.h. */
#include <string.h>

#include "base/buf.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

#define EVENTS_KEPT 500 /* per Space, and without a Space */

void event_release(struct event *e)
{
	free(e->kind);
	free(e->text);
	*e = (struct event){0};
}

static const char *or_null(const char *s)
{
	return s && *s ? s : NULL;
}

int store_event_add(struct store *s, const char *space_id, const char *actor_id, const char *kind, const char *text,
		    struct err *err)
{
	if (store_exec(s, err, NULL, "INSERT INTO events (at, space_id, actor_id, kind, text) VALUES (?, ?, ?, ?, ?)",
		       "issss", (int64_t)io_wall_ms(), or_null(space_id), or_null(actor_id), kind,
		       text ? text : "") < 0)
		return -1;
	/* Bounded, or a Space that restarts for ever fills the disk. */
	return store_exec(s, err, NULL,
			  "DELETE FROM events WHERE space_id IS ?1 AND id <="
			  " (SELECT id FROM events WHERE space_id IS ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
			  "si", or_null(space_id), (int64_t)EVENTS_KEPT);
}

int store_event_list(struct store *s, const char *space_id, size_t limit, struct event **out, size_t *n,
		     struct err *err)
{
	int64_t max = limit ? (int64_t)limit : -1;
	cleanup_stmt sqlite3_stmt *st =
	    space_id ? store_query(s, err,
				   "SELECT id, at, space_id, actor_id, kind, text FROM events WHERE space_id = ?"
				   " ORDER BY id DESC LIMIT ?",
				   "si", space_id, max)
		     : store_query(s, err,
				   "SELECT id, at, space_id, actor_id, kind, text FROM events ORDER BY id DESC LIMIT ?",
				   "i", max);
	struct event *list = NULL;
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		struct event *e = &list[(*n)++];
		*e = (struct event){.id = store_u64(st, 0), .at = store_u64(st, 1)};
		store_copy(st, 2, e->space_id, sizeof(e->space_id));
		store_copy(st, 3, e->actor_id, sizeof(e->actor_id));
		e->kind = store_text(st, 4);
		e->text = store_text(st, 5);
	}
	*out = list;
	return rc;
}
