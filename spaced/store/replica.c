/* Several instances of a Space in the control store; see store.h. */
#include "base/buf.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

int store_space_set_replicas(struct store *s, const char *id, uint32_t replicas, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET replicas = ?, modified = ? WHERE id = ?", "iis",
			      (int64_t)replicas, (int64_t)io_wall_ms(), id);
}

int store_space_set_sticky(struct store *s, const char *id, const char *key, struct err *err)
{
	return store_exec_one(s, err, "Space", "UPDATE spaces SET sticky = ?, modified = ? WHERE id = ?", "sis", key,
			      (int64_t)io_wall_ms(), id);
}

int store_replica_add(struct store *s, const char *space_id, uint32_t generation, struct err *err)
{
	return store_exec(s, err, NULL, "INSERT OR IGNORE INTO replicas (space_id, generation) VALUES (?, ?)", "si",
			  space_id, (int64_t)generation);
}

int store_replica_remove(struct store *s, const char *space_id, uint32_t generation, struct err *err)
{
	return store_exec(s, err, NULL, "DELETE FROM replicas WHERE space_id = ? AND generation = ?", "si", space_id,
			  (int64_t)generation);
}

int store_replica_list(struct store *s, const char *space_id, uint32_t *out, size_t max, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err, "SELECT generation FROM replicas WHERE space_id = ? ORDER BY generation LIMIT ?", "si",
			space_id, (int64_t)max);
	int rc = -1;

	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0)
		out[(*n)++] = (uint32_t)store_u64(st, 0);
	return rc;
}
