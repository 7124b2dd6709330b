/* Connections that an app's kernel has not taken yet. The queue of a small app's listener has few places (six, for http.server
 * of Python), and who finds none is dropped: TCP asks again after 1, 3, 7, 15 seconds, so that of a crowd that was refused
 * together a few get in each time and the last ones after minutes. So we ask again ourselves, soon at first and then more
 * rarely, and of all that want to go to one app only a few ask at the same time: the others wait in line (pool.c). */
#include <errno.h>
#include <netinet/tcp.h>

#include <utlist.h>

#include "proxy/worker.h"

#define CROWD_MAX 4 /* at the same time, of each worker, to one instance */
#define KNOCK_MS 8
#define KNOCK_MAX_MS 250

static void on_knock(uv_timer_t *t);

static void look_in(struct worker *w, uint64_t ms)
{
	if (!uv_is_active((uv_handle_t *)&w->knock) || uv_timer_get_due_in(&w->knock) > ms)
		uv_timer_start(&w->knock, on_knock, ms, 0);
}

void knock_init(struct worker *w)
{
	uv_timer_init(&w->loop, &w->knock);
	w->knock.data = w;
}

void knock_begin(struct upstream *u)
{
	struct worker *w = u->conn.w;

	if (u->pool->kind != ROUTE_APP)
		return;
	u->knocks = true;
	u->knock_ms = KNOCK_MS;
	u->knock_at = uv_now(&w->loop) + KNOCK_MS;
	DL_APPEND(w->knocking, u);
	u->pool->nknocking++;
	look_in(w, KNOCK_MS);
}

/* Who waits in its line goes on a moment later: whoever ends this may be in the middle of a request. */
void knock_end(struct upstream *u)
{
	if (!u->knocks)
		return;
	u->knocks = false;
	DL_DELETE(u->conn.w->knocking, u);
	u->pool->nknocking--;
	if (u->pool->waiting)
		look_in(u->conn.w, 0);
}

void knock_soon(struct worker *w)
{
	look_in(w, 0);
}

bool knock_has_room(const struct pool *p)
{
	return p->nknocking < CROWD_MAX;
}

/* The queue may have been full again at the very end of the handshake: then we have a connection, and the app's kernel none,
 * and nothing that is sent is acknowledged. Of what has a body nothing can be said: an app may read that slowly. */
static bool is_taken(const struct upstream *u)
{
	const struct exchange *x = u->x;
	struct tcp_info info;
	socklen_t len = sizeof info;

	return x->req_body != HTTP1_NO_BODY || x->res_head ||
	       getsockopt(u->conn.fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || info.tcpi_unacked == 0;
}

void knock_sent(struct upstream *u)
{
	if (u->knocks && (!u->pool->waiting || is_taken(u)))
		knock_end(u);
}

static void again(struct upstream *u, uint64_t now)
{
	u->knock_ms = (uint16_t)(u->knock_ms * 2 < KNOCK_MAX_MS ? u->knock_ms * 2 : KNOCK_MAX_MS);
	u->knock_at = now + u->knock_ms;
	if (u->connected) {
		if (u->x->head_sent)
			knock_sent(u);
		return;
	}
	int r = upstream_connect_again(u);
	if (r < 0)
		exchange_upstream_lost(u->x, r);
}

/* It was refused at least once, and there is a connection now that was kept alive. */
static bool may_take_idle(const struct upstream *u)
{
	return u->pool->idle && !u->connected && u->knock_ms > KNOCK_MS && !u->x->retried;
}

/* One that is refused now ends its own exchange, and its client's next request may come in: never another one of the list. */
static void on_knock(uv_timer_t *t)
{
	struct worker *w = t->data;
	struct upstream *u, *next;
	struct pool *p, *after;
	uint64_t now = uv_now(&w->loop), due = UINT64_MAX;

	DL_FOREACH_SAFE(w->knocking, u, next)
	if (may_take_idle(u))
		exchange_take_idle(u->x);
	else if (u->knock_at <= now)
		again(u, now);
	HASH_ITER(hh, w->pools, p, after)
	if (p->waiting)
		pool_serve(w, p);
	DL_FOREACH(w->knocking, u)
	if (u->knock_at < due)
		due = u->knock_at;
	if (due != UINT64_MAX)
		look_in(w, due > now ? due - now : 0);
}
