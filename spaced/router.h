/* Control's end of the proxies: publishes routes to all of them, hears about activity and drained instances. Keeps the
 * whole table so that a restarted proxy gets a snapshot. */
#ifndef SPACED_ROUTER_H
#define SPACED_ROUTER_H

#include <uv.h>

#include "proxy/counters.h"
#include "proxy/gate.h"
#include "proxy/route.h"
#include "proxy/ticket.h"

struct router;
struct router_callbacks {
	/* What the proxy `peer` has counted since it last did; space "": what is of none. */
	void (*activity)(void *ctx, uint64_t peer, const char *space, const struct counters *growth);
	void (*proxy_gone)(void *ctx, uint64_t peer);
	/* The proxy that the parent calls so was given up while it runs, and `proxy_gone` told: another is to take its place. What
	 * it says has no form, or too much of what it is told is unread. */
	void (*replace)(void *ctx, uint32_t proxy);
	/* So many lines of the access log; the proxy's next ones come after router_logged(). */
	void (*log)(void *ctx, uint64_t peer, struct str bytes, uint32_t lines);
	void (*idle)(void *ctx, const char *instance, uint32_t generation); /* every proxy has drained it */
	/* A proxy asks whether a token's user may enter a private Space. `wait`: seconds, of VERDICT_SLOW; `user`: its id, of
	 * VERDICT_ENTER. */
	enum gate_verdict (*may_enter)(void *ctx, const char *space_id, const char *token, const char *client,
				       uint32_t *wait, char user[TICKET_ID]);
	void (*wake)(void *ctx, const char *space); /* somebody waits for it; may come often */
	void (*quieted)(void *ctx, const char *instance, uint32_t serial, bool busy);
	int (*spawner_socket)(void *ctx); /* a fresh channel to the spawner for one proxy, handed over; -1: none now */
	void *ctx;
};
struct router *router_new(uv_loop_t *loop, const char *domain, const struct router_callbacks *cb);
void router_free(struct router *r);
void router_logged(struct router *r, uint64_t peer); /* it may be gone */
size_t router_proxies(const struct router *r);	     /* how many there are now */
/* A proxy's channel (taken over), at start and whenever the parent has restarted one. Sends the snapshot. `proxy`: the
 * parent's number for it. */
void router_attach(struct router *r, int sock, uint32_t proxy);
/* The spawner was restarted: every proxy gets a fresh channel to it. */
void router_renew_spawner(struct router *r);
/* The keys of tickets, to all proxies now and to each new one before its routes. */
void router_set_keys(struct router *r, const struct ticket_keys *keys);
/* What let the user into private Spaces was revoked, and the proxies have other keys: what he has open there ends. */
void router_expel(struct router *r, const char *user_id);
/* Before the first call of this, nothing is committed: visitors wait until control knows what runs. */
void router_ready(struct router *r);
void router_set(struct router *r, const struct route *route); /* copied */
void router_remove(struct router *r, const char *host);
/* After a ROUTE_HOLD took its place: `quieted` comes when every proxy has closed its idle connections to it and said whether
 * anything is in flight; before this returns when there is none. */
void router_quiet(struct router *r, const char *instance, uint32_t generation, uint32_t serial);
/* Who serves the socket `path` of a ROUTE_UNIX makes way: the proxies close their idle connections to it, and keep none of
 * those in use beyond its answer. */
void router_leave(struct router *r, const char *path);
/* Tells the proxies to drain; `idle` comes when all have, or at once when there is none. */
void router_drain(struct router *r, const char *instance, uint32_t generation);
/* Its time is over: what the proxies have in flight to it ends now. */
void router_cut(struct router *r, const char *instance, uint32_t generation);

#endif
