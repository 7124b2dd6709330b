/* Host names of Spaces' own in the control store; see store.h. */
#include <errno.h>

#include "base/buf.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

void domain_release(struct domain *d)
{
	free(d->host);
	free(d->space);
	*d = (struct domain){0};
}

int store_domain_add(struct store *s, const char *space_id, const char *host, struct err *err)
{
	return store_exec(s, err, NULL, "INSERT INTO domains (host, space_id, created) VALUES (?, ?, ?)", "ssi", host,
			  space_id, (int64_t)io_wall_ms());
}

int store_domain_remove(struct store *s, const char *space_id, const char *host, struct err *err)
{
	return store_exec_one(s, err, "domain of this Space", "DELETE FROM domains WHERE host = ? AND space_id = ?",
			      "ss", host, space_id);
}

int store_domain_list(struct store *s, const char *space_id, struct domain **out, size_t *n, struct err *err)
{
	struct domain *list = NULL;
	size_t cap = 0;
	int rc = -1;

	*out = NULL;
	*n = 0;
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err,
			"SELECT d.host, d.space_id, d.created, u.name || '/' || s.name FROM domains d"
			" JOIN spaces s ON s.id = d.space_id JOIN users u ON u.id = s.owner_id"
			" WHERE ?1 IS NULL OR d.space_id = ?1 ORDER BY d.created, d.host",
			"s", space_id);
	while (st && (rc = store_step(s, st, err)) > 0) {
		if (*n == cap) {
			cap = cap ? cap * 2 : 8;
			list = xreallocarray(list, cap, sizeof *list);
		}
		struct domain *d = &list[(*n)++];
		d->host = store_text(st, 0);
		store_copy(st, 1, d->space_id, sizeof d->space_id);
		d->created = store_u64(st, 2);
		d->space = store_text(st, 3);
	}
	*out = list;
	return rc;
}

void store_domains_free(struct domain *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		domain_release(&list[i]);
	free(list);
}
