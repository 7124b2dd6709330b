/* Bytes that the instances of a Space had from the Internet and sent to it; see store.h. */
#include "spaced/store/store_int.h"

#define KEPT 32 /* instances with a row of their own; those before are long gone, their sum is generation 0 */

static int fold(struct store *s, const char *space_id, int64_t below, struct err *err)
{
	if (store_exec(
		s, err, NULL,
		"INSERT INTO traffic SELECT space_id, 0, sum(received), sum(sent) FROM traffic WHERE space_id = ?1"
		" AND generation BETWEEN 1 AND ?2 GROUP BY space_id ON CONFLICT (space_id, generation) DO UPDATE"
		" SET received = received + excluded.received, sent = sent + excluded.sent",
		"si", space_id, below) < 0)
		return -1;
	return store_exec(s, err, NULL, "DELETE FROM traffic WHERE space_id = ?1 AND generation BETWEEN 1 AND ?2", "si",
			  space_id, below);
}

int store_traffic_note(struct store *s, const char *space_id, uint32_t generation, uint64_t received, uint64_t sent,
		       struct err *err)
{
	if (store_begin(s, err) < 0)
		return -1;
	int rc = store_exec(s, err, NULL,
			    "INSERT INTO traffic SELECT id, ?2, ?3, ?4 FROM spaces WHERE id = ?1 ON CONFLICT "
			    "(space_id, generation) DO UPDATE"
			    " SET received = max(received, excluded.received), sent = max(sent, excluded.sent)",
			    "siii", space_id, (int64_t)generation, (int64_t)received, (int64_t)sent);
	if (rc == 0 && generation > KEPT)
		rc = fold(s, space_id, (int64_t)generation - KEPT, err);
	if (rc == 0)
		return store_commit(s, err);
	store_rollback(s);
	return -1;
}

int store_traffic_sum(struct store *s, const char *space_id, uint64_t *received, uint64_t *sent, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(
	    s, err, "SELECT coalesce(sum(received), 0), coalesce(sum(sent), 0) FROM traffic WHERE space_id = ?", "s",
	    space_id);

	if (!st || store_step(s, st, err) < 1)
		return -1;
	*received = store_u64(st, 0);
	*sent = store_u64(st, 1);
	return 0;
}
