/* The route table: host name -> where a request goes. Filled by the control role (frames below) or from a file (the
 * `proxy` program). A lookup is one hash probe, and where there are wildcards at most one more for each label of a name that is
 * not there itself; an update replaces one entry and blocks nobody. 10,000 routes take less than 4 MiB. */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "base/frame.h"

#define ROUTE_HOST_MAX 253
#define ROUTE_ENDPOINTS_MAX 16

enum route_kind {
	ROUTE_APP = 1, /* TCP `port` on 127.0.0.1 inside the network namespaces of sandboxes */
	ROUTE_UNIX,    /* unix stream sockets (control, static) */
	ROUTE_TCP,     /* plain addresses (the stand-alone program) */
	ROUTE_PAGE,    /* no upstream: answer with `page` */
	ROUTE_HOLD, /* none yet: requests wait for another route, and PROXY_WAKE is sent; `page` is for those that wait long */
};

/* One of the places that a route's requests may go to. */
struct endpoint {
	char name[108];	     /* a sandbox (at most 80 characters), a path, "ADDR:PORT" */
	uint32_t generation; /* another number: another set of pooled connections */
};

struct route {
	char host[ROUTE_HOST_MAX + 1]; /* lower case, no port, no trailing dot */
	enum route_kind kind;
	struct endpoint endpoints[ROUTE_ENDPOINTS_MAX]; /* requests are balanced over them (balance.c) */
	unsigned nendpoints;				/* 0 of ROUTE_PAGE and ROUTE_HOLD */
	uint16_t port;
	char sticky[33]; /* key of the cookie that keeps a visitor to an endpoint, 32 characters; "": there is none */
	char site[81];	 /* sent as X-Spaced-Site to the static role; never accepted from a client */
	char space[200]; /* owner/name, for logs, error pages and counters */
	uint16_t page_status; /* 404, 503, ... */
	bool page_refresh;    /* the page reloads itself, and Retry-After is sent */
	char *page_title;     /* plain text; the proxy escapes it */
	char *page_text;      /* plain text, may be long (the last log lines) */
	char *headers;	      /* "Name: value\r\n"... added to each response; checked by control */
	char space_id[25]; /* 24 hex digits, or "": no Space. With one, no app sees what opens Spaces (credentials.h) */
	uint32_t rate;	   /* requests per second (rate.h); 0: no limit */
	bool gated;	   /* private: nothing passes but what gate.c lets in */
};
void route_release(struct route *r);
void route_encode(const struct route *r, struct buf *b);
int route_decode(struct reader *rd, struct route *r); /* 0 or -EBADMSG */

/* control -> proxy over the role channel; the proxy answers nothing but the events (>= 100). A malformed frame ends the
 * channel: the proxy closes it, tells its parent (PROXY_LOST), and goes on with the routes it has.
 *
 * After an upgrade the proxies of before serve what is under way to them, and follow the new control. So a verb keeps its number
 * and its fields, new fields come behind (those of a route too), new counters last, and a proxy skips fields and verbs that it
 * does not know. */
enum proxy_verb {
	/* Routes (route_feed.h). Each change that control makes is one version; what is sent names the one it belongs to. */
	PROXY_RESET =
	    1, /* {u64 version, str domain}: a snapshot begins; it takes the place of all routes at PROXY_COMMIT */
	PROXY_ROUTE,  /* {u64 version, route}: one of the snapshot, or with the next version a delta: add or replace */
	PROXY_REMOVE, /* {u64 version, str host}: a delta */
	PROXY_COMMIT, /* {u64 version, u32 routes}: the snapshot is whole when it has so many; requests are served from
			    here on. Without a snapshot: so it should be now */
	PROXY_DRAIN,  /* {str instance, u32 generation}: no new requests to it; requests in flight go on */
	PROXY_SPAWNER, /* {} fd: SEQPACKET to the spawner, which takes the place of the one before. Until it comes, after the
			     old one closed, requests that need a new socket inside an app wait for it, hold_ms at most; then
			     503 with Retry-After.
			     Accepted from control and from the parent */
	PROXY_NEW_CONTROL, /* {} fd: SEQPACKET to (the restarted) control. From the parent only. The routes stay as they are
			      until the new control has sent RESET .. COMMIT */
	PROXY_QUIET, /* {str instance, u32 generation, u32 serial}: closes the idle connections to it, and those in use after
			their answers. Behind a ROUTE_HOLD that took its place the answer, PROXY_QUIETED, says whether nothing
			of it is left. The same with the path of a ROUTE_UNIX, generation 0: who listens there makes way */
	PROXY_CUT,	 /* {str instance, u32 generation}: what is in flight to it ends: where a response has begun its
			 connection is closed, what it was not sent yet goes by another route, the rest is 503 */
	PROXY_KEYS = 30, /* {ticket_keys}: tickets are made and checked with these from here on; remembered answers to
			    PROXY_ASK are forgotten */
	PROXY_VERDICT, /* {u8 gate_verdict, u32 seconds to wait, str id of the token's user}: the answer to the PROXY_ASK of the
			  same frame id */
	PROXY_EXPEL, /* {str user id}: something that let the user into private Spaces was revoked: WebSockets and streams of
			his there are cut, and what has no answer yet */
	PROXY_LOGGED = 40, /* {}: the last PROXY_LOG was written, or cannot be */
	PROXY_RETIRE =
	    60, /* {u32 ms}: another worker serves the socket; accept nothing more, end after the last client or
			      after so long. From the parent only */
	PROXY_READY =
	    100,    /* event: {u64 version} after COMMIT; to the parent without a payload: it accepts from here on */
	PROXY_IDLE, /* event: {str instance, u32 generation}: drained, nothing in flight any more */
	PROXY_ACTIVITY, /* event, at most once a second: {u32 n, n times: str space ("": what is of none), counters}: the growth
			     since the last one (counters.h), and what is there now. Control that hangs is told later, all at once */
	PROXY_WAKE, /* event: {str space}: somebody waits for it; once for each ROUTE_HOLD that they wait at, and again to a new control */
	PROXY_QUIETED, /* event: {u32 serial, u32 n}: so many requests, WebSockets and streams are in flight to it */
	PROXY_STALE,   /* event: {u64 version}: the deltas do not go on from what is here: send a snapshot */
	PROXY_NO_SPAWNER, /* event: {}: its channel to the spawner has ended, whatever became of that: a PROXY_SPAWNER, please. Said
			     again until one comes; control gives one a second at most */
	PROXY_ASK = 130, /* {str space id, str token, str client}: may the token's user enter the private Space? */
	PROXY_LOG =
	    140, /* event: {u32 n, bytes}: n lines of the access log (access_line.h); the next such after PROXY_LOGGED, and at
		    the end of the proxy all that are left, PROXY_LOGS_MAX at most */
	PROXY_LOST = 160, /* event, to the parent only: what control says has no form, its channel is closed */
};
#define PROXY_LOGS_MAX 16

struct target_endpoint {
	const char *name;
	const char *cookie; /* its value, "" when not sticky (sticky.h) */
	uint32_t generation;
};

/* The table itself: it keeps each route as one small counted object, so that a request in flight outlives an update. */
struct target {
	uint32_t rate;
	UT_hash_handle hh; /* in the table, by `host` */
	enum route_kind kind;
	uint32_t refs;
	uint16_t port;
	uint16_t page_status;
	uint8_t nendpoints;
	bool page_refresh, gated, sticky;
	const struct target_endpoint *endpoints;
	/* "" where absent; owned by the target, as the endpoints are */
	const char *host, *site, *space, *page_title, *page_text, *headers, *space_id;
};
struct target *target_ref(const struct target *t);
void target_unref(struct target *t);

struct route_table;
struct route_table *route_table_new(void);
void route_table_free(struct route_table *t);
/* Copies; what `r` owns stays the caller's. */
void route_table_set(struct route_table *t, const struct route *r);
void route_table_remove(struct route_table *t, const char *host);
size_t route_table_size(const struct route_table *t);
/* `host` as it came in the request (case, port and trailing dot are folded here). NULL: no such host. `*.x` routes match
 * one or more labels before `.x` when there is no exact one. */
const struct target *route_lookup(const struct route_table *t, struct str host);
/* The route of just that host or wildcard, as a target names it; NULL: there is none (any more). */
const struct target *route_at(const struct route_table *t, const char *host);
/* Folds a Host value into its canonical form; false when it is not a host name or address (userinfo, spaces, ...). */
bool route_canonical_host(struct str host, char out[ROUTE_HOST_MAX + 1]);

#endif
