/* Which upstream connection an exchange gets: an idle one of the same address or the same generation of the same app, a
 * new one, or a place in the line for a socket from the spawner. */
#include <errno.h>

#include <utlist.h>

#include "proxy/worker.h"

#define IDLE_MAX 512
#define BATCH 4
#define FAILED_MS 2000 /* an endpoint that takes no connection is avoided for so long */

_Static_assert(SPARE_MAX <= FRAME_MAX_FDS, "one frame has room for all that are asked for");

#define KEY_MAX 160

static size_t key_of(const struct target *t, unsigned i, char key[KEY_MAX])
{
	const struct target_endpoint *e = &t->endpoints[i];
	int n = t->kind == ROUTE_APP ? snprintf(key, KEY_MAX, "%s\n%u\n%u", e->name, e->generation, t->port)
				     : snprintf(key, KEY_MAX, "%d\n%s", t->kind, e->name);

	return (size_t)n;
}

struct pool *pool_find(struct worker *w, const struct target *t, unsigned i)
{
	char key[KEY_MAX];
	size_t n = key_of(t, i, key);
	struct pool *p;

	HASH_FIND(hh, w->pools, key, n, p);
	return p;
}

struct pool *pool_of(struct worker *w, const struct target *t, unsigned i)
{
	struct pool *p = pool_find(w, t, i);
	char key[KEY_MAX];

	if (p)
		return p;
	size_t n = key_of(t, i, key);
	p = xcalloc(1, sizeof *p);
	p->key = xstrndup(key, n);
	p->kind = t->kind;
	p->generation = t->endpoints[i].generation;
	p->port = t->port;
	memcpy(p->name, t->endpoints[i].name, strnlen(t->endpoints[i].name, sizeof p->name - 1));
	HASH_ADD_KEYPTR(hh, w->pools, p->key, n, p);
	return p;
}

void pool_failed(struct worker *w, struct pool *p)
{
	p->failed_until = uv_now(&w->loop) + FAILED_MS;
}

static void ask_for_sockets(struct worker *w, struct pool *p)
{
	size_t have = (size_t)p->nspare + p->opens;
	size_t want = p->nwaiting + 1 < SPARE_MAX ? p->nwaiting + 1 : SPARE_MAX;

	if (have >= want)
		return;
	want -= have;
	if (want < BATCH)
		want = BATCH;
	if (want > SPARE_MAX - have)
		want = SPARE_MAX - have;
	spawn_open(w, p, (uint32_t)want);
}

void pool_take_idle(struct pool *p, struct exchange *x)
{
	struct upstream *u = p->idle;

	pool_remove_idle(u);
	deadline_clear(&u->conn);
	u->reused = true;
	upstream_attach(u, x);
	exchange_ready(x);
}

/* The first in its line that may have an idle one. */
static struct exchange *not_retried(const struct pool *p)
{
	struct exchange *x;

	DL_FOREACH(p->waiting, x)
	if (!x->retried)
		break;
	return x;
}

/* Those in its line, as far as there are idle connections, or sockets and places. */
static void serve_line(struct worker *w, struct pool *p)
{
	for (struct exchange *x; p->idle && (x = not_retried(p)) != NULL;) {
		pool_cancel(x);
		pool_take_idle(p, x);
	}
	while (p->waiting && p->nspare && knock_has_room(p)) {
		struct exchange *x = p->waiting;
		pool_cancel(x);
		int r = upstream_connect(p, x, p->spare[--p->nspare]);
		if (r < 0)
			exchange_upstream_lost(x, r);
	}
}

void pool_serve(struct worker *w, struct pool *p)
{
	serve_line(w, p);
	if (p->waiting)
		ask_for_sockets(w, p);
}

static void line_up(struct pool *p, struct exchange *x)
{
	x->waiting = true;
	DL_APPEND(p->waiting, x);
	p->nwaiting++;
}

static int acquire_app(struct worker *w, struct pool *p, struct exchange *x)
{
	if (p->nspare && !p->waiting && knock_has_room(p)) {
		int fd = p->spare[--p->nspare];
		ask_for_sockets(w, p); /* the next one ahead of time; a failure shows when it is needed */
		return upstream_connect(p, x, fd);
	}
	line_up(p, x);
	ask_for_sockets(w, p); /* without a spawner it waits for the next one, until its deadline */
	return 0;
}

int pool_acquire(struct pool *p, struct exchange *x, bool fresh)
{
	/* Others may have waited longer for one. */
	if (p->idle && !fresh && (p->waiting || p->nknocking)) {
		line_up(p, x);
		knock_soon(x->c->conn.w);
		return 0;
	}
	if (p->idle && !fresh) {
		pool_take_idle(p, x);
		return 0;
	}
	if (p->kind == ROUTE_APP)
		return acquire_app(x->c->conn.w, p, x);
	return upstream_connect(p, x, -1);
}

void pool_cancel(struct exchange *x)
{
	x->waiting = false;
	DL_DELETE(x->pool->waiting, x);
	x->pool->nwaiting--;
}

/* Of the host or the spawner, not of the app: over in a moment. */
static bool shortage(int error)
{
	return error == -ENOTCONN || error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS ||
	       error == -EAGAIN || error == -ECHILD;
}

void pool_opened(struct worker *w, struct pool *p, struct frame *f, size_t asked, int error)
{
	p->opens -= asked;
	for (int i = 0; f && i < f->nfds; i++) {
		int fd = frame_take_fd(f, i);
		if (p->nspare < SPARE_MAX && (p->waiting || !p->draining))
			p->spare[p->nspare++] = fd;
		else
			close(fd);
	}
	serve_line(w, p);
	/* They wait for the next tick, or for the next spawner, until their deadline. */
	if (shortage(error))
		return;
	/* What fails now fails for all. */
	while (error < 0 && p->waiting) {
		struct exchange *x = p->waiting;
		pool_cancel(x);
		exchange_upstream_lost(x, error);
	}
	if (p->waiting && p->opens == 0)
		ask_for_sockets(w, p);
}

/* Who waits has the whole time again from here on: what passed without a spawner was none of the app's. */
void pool_new_spawner(struct worker *w)
{
	struct pool *p, *next;
	struct exchange *x;

	HASH_ITER(hh, w->pools, p, next)
	{
		DL_FOREACH(p->waiting, x)
		deadline_set(&x->c->conn, DL_CONNECT);
		if (p->waiting)
			ask_for_sockets(w, p);
	}
}

void pool_put_back(struct upstream *u)
{
	struct pool *p = u->pool;

	knock_end(u);
	if (p->draining || u->quiets != p->quiets || p->nidle >= IDLE_MAX || u->conn.w->ending) {
		conn_close(&u->conn, false);
		return;
	}
	buf_release(&u->conn.in);
	u->conn.seen = 0;
	u->pooled = true;
	DL_PREPEND(p->idle, u);
	p->nidle++;
	deadline_set(&u->conn, DL_POOL);
	if (p->waiting || p->nknocking)
		knock_soon(u->conn.w);
	conn_read_start(&u->conn); /* an app that closes is noticed before the next request */
}

void pool_remove_idle(struct upstream *u)
{
	u->pooled = false;
	DL_DELETE(u->pool->idle, u);
	u->pool->nidle--;
}

static void close_idle(struct pool *p)
{
	while (p->idle)
		upstream_close(p->idle);
	while (p->nspare)
		close(p->spare[--p->nspare]);
}

void pool_leave(struct pool *p)
{
	p->busy--;
}

/* An instance, or the path of a role's socket: neither looks like the other. */
static bool is_endpoint(const struct pool *p, const char *name, uint32_t generation)
{
	return p->kind != ROUTE_TCP && p->generation == generation && strcmp(p->name, name) == 0;
}

void pool_drain(struct worker *w, const char *instance, uint32_t generation)
{
	struct pool *p, *next;
	bool known = false;

	HASH_ITER(hh, w->pools, p, next)
	{
		if (!is_endpoint(p, instance, generation))
			continue;
		p->draining = known = true;
		close_idle(p);
	}
	if (!known)
		control_say_idle(w, instance, generation);
}

uint32_t pool_quiet(struct worker *w, const char *endpoint, uint32_t generation)
{
	struct pool *p, *next;
	size_t busy = 0;

	HASH_ITER(hh, w->pools, p, next)
	{
		if (!is_endpoint(p, endpoint, generation))
			continue;
		p->quiets++;
		close_idle(p);
		busy += p->busy;
	}
	return (uint32_t)busy;
}

struct cut {
	const char *instance;
	uint32_t generation;
};

static void cut_one(struct client *c, const void *ctx)
{
	const struct cut *cut = ctx;
	struct exchange *x = c->x;

	if (!x || !x->pool || !is_endpoint(x->pool, cut->instance, cut->generation))
		return;
	if (x->res_head) {
		client_cut(c, x->out_body == HTTP1_UNTIL_CLOSE);
	} else if (!x->head_sent && reroute_due(x)) {
		exchange_withdraw(x);
		reroute_send(x, reroute_take(x));
	} else {
		exchange_error(x, 503, "This app was replaced while it was to answer", "Try again.");
	}
}

void pool_cut(struct worker *w, const char *instance, uint32_t generation)
{
	struct cut cut = {instance, generation};

	client_each(w, cut_one, &cut);
}

/* Those who wait in line. Who knocks may still get in. */
void pool_routes_changed(struct worker *w)
{
	struct pool *p, *after;
	struct exchange *x, *next;

	HASH_ITER(hh, w->pools, p, after)
	DL_FOREACH_SAFE(p->waiting, x, next)
	{
		if (!reroute_due(x))
			continue;
		exchange_withdraw(x);
		reroute_send(x, reroute_take(x));
	}
}

static void end_one(struct client *c, const void *ctx)
{
	struct exchange *x = c->x;

	(void)ctx;
	if (!x || !x->pool || x->head_sent || x->res_head)
		return;
	x->refused = REFUSED_HELD_LONG;
	exchange_error(x, 503, "The server is being restarted", "Try again in a few seconds.");
}

void pool_end(struct worker *w)
{
	client_each(w, end_one, NULL);
}

/* At each tick: who still waits asks again, drained ones are announced, unused ones forgotten. Upstreams that are still
 * closing do not look at their pool. */
void pool_sweep(struct worker *w)
{
	struct pool *p, *next;

	HASH_ITER(hh, w->pools, p, next)
	{
		if (p->waiting && p->opens == 0)
			ask_for_sockets(w, p);
		if (p->nidle == 0 && p->busy == 0)
			while (p->nspare)
				close(p->spare[--p->nspare]);
		if (p->busy || p->nidle || p->opens || uv_now(&w->loop) < p->failed_until)
			continue;
		HASH_DEL(w->pools, p);
		if (p->draining)
			control_say_idle(w, p->name, p->generation);
		free(p->key);
		free(p);
	}
}
