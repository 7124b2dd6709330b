/* How control's routes come into a worker's table: a whole snapshot of one version, then deltas, each of which makes the next
 * version of the one before. A snapshot is served when it is whole and not before; a delta to another version than the one that
 * is there changes nothing, and then, as after a snapshot with a route too few, a whole snapshot is asked for. Pure; control.c
 * calls it for the frames of route.h. */
#ifndef PROXY_ROUTE_FEED_H
#define PROXY_ROUTE_FEED_H

#include "proxy/route.h"

struct route_feed {
	struct route_table *served; /* owned, as is `coming` */
	struct route_table *coming; /* between RESET and COMMIT, else NULL */
	uint64_t version;	    /* of `served`; 0: none yet */
	uint64_t coming_version;
	bool stale; /* asked for a snapshot: what comes before it is dropped */
};

enum feed_result {
	FEED_DONE,    /* the routes that are served have changed */
	FEED_WAIT,    /* nothing to do yet */
	FEED_ASK,     /* a gap: PROXY_STALE is to be sent, once */
	FEED_GARBAGE, /* the snapshot that was asked for is no better: the sender is broken */
};

void feed_init(struct route_feed *f);
void feed_release(struct route_feed *f);
/* The sender is gone: a snapshot half come in is nothing. */
void feed_cut(struct route_feed *f);
enum feed_result feed_reset(struct route_feed *f, uint64_t version);
enum feed_result feed_set(struct route_feed *f, uint64_t version, const struct route *r);
enum feed_result feed_remove(struct route_feed *f, uint64_t version, const char *host);
/* `routes`: so many there are at that version. FEED_DONE also when a check without a snapshot finds all well. */
enum feed_result feed_commit(struct route_feed *f, uint64_t version, uint32_t routes);

#endif
