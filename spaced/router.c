/* See router.h. */
#include "spaced/router.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "proxy/access_line.h"

/* So much and BEHIND_TIMES all routes may be queued for a proxy: whoever reads gets less far behind, and a snapshot is shorter. */
#define BEHIND_BYTES (4U << 20)
#define BEHIND_TIMES 4
#define SPAWNER_MS 1000 /* a proxy that asks gets another channel to the spawner so often */

struct entry {
	char host[ROUTE_HOST_MAX + 1];
	struct buf wire; /* the route as it is sent */
	UT_hash_handle hh;
};

struct peer {
	uint64_t bit;	     /* one of 64, unique among the peers of now */
	uint64_t number;     /* never used again */
	uint32_t proxy;	     /* the parent's number */
	unsigned logs;	     /* batches of the access log that are being written */
	uint64_t spawner_at; /* when it was last to have a channel to the spawner */
	bool behind;	     /* too much is unread: it is given up on the next turn of the loop */
	struct router *router;
	struct channel *channel;
	struct peer *next;
};

/* A drain that some proxies have not confirmed yet. */
struct drain {
	char instance[81];
	uint32_t generation;
	uint64_t waiting; /* bits of the peers that have not confirmed */
	struct drain *next;
};

struct quiet {
	char instance[81];
	uint32_t serial;
	uint64_t waiting; /* as of a drain */
	bool busy;
	struct quiet *next;
};

struct router {
	uv_loop_t *loop;
	char *domain;
	struct router_callbacks cb;
	struct entry *entries;
	struct peer *peers;
	struct drain *drains;
	struct quiet *quiets;
	bool ready;
	uint64_t version, numbers;
	size_t bytes; /* of all routes, as they are sent */
	uv_timer_t behind;
	struct ticket_keys keys; /* none yet: nkeys 0 */
};

struct router *router_new(uv_loop_t *loop, const char *domain, const struct router_callbacks *cb)
{
	struct router *r = xcalloc(1, sizeof *r);

	r->loop = loop;
	r->domain = xstrdup(domain);
	r->cb = *cb;
	uv_timer_init(loop, &r->behind);
	r->behind.data = r;
	return r;
}

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

void router_free(struct router *r)
{
	struct entry *e, *next;

	while (r->peers) {
		struct peer *p = r->peers;
		r->peers = p->next;
		channel_close(p->channel);
		free(p);
	}
	while (r->drains) {
		struct drain *d = r->drains;
		r->drains = d->next;
		free(d);
	}
	while (r->quiets) {
		struct quiet *q = r->quiets;
		r->quiets = q->next;
		free(q);
	}
	HASH_ITER(hh, r->entries, e, next)
	{
		HASH_DEL(r->entries, e);
		buf_release(&e->wire);
		free(e);
	}
	free(r->domain);
	sodium_memzero(&r->keys, sizeof r->keys);
	uv_close((uv_handle_t *)&r->behind, on_closed);
}

size_t router_proxies(const struct router *r)
{
	size_t n = 0;

	for (const struct peer *p = r->peers; p; p = p->next)
		n++;
	return n;
}

static void on_behind(uv_timer_t *t);

/* What is queued for one that does not read is bounded: it is stopped, or turns in a circle, and will not do better. */
static void tell(struct peer *p, uint32_t type, uint32_t id, const void *payload, size_t len, const int *fds, int nfds)
{
	struct router *r = p->router;

	if (p->behind)
		return;
	channel_send(p->channel, type, id, payload, len, fds, nfds);
	p->behind = channel_queued(p->channel) > BEHIND_BYTES + BEHIND_TIMES * r->bytes;
	if (p->behind)
		uv_timer_start(&r->behind, on_behind, 0, 0);
}

static void idle_from(struct router *r, uint64_t bit, const char *instance, uint32_t generation)
{
	for (struct drain **at = &r->drains; *at; at = &(*at)->next) {
		struct drain *d = *at;
		if (d->generation != generation || strcmp(d->instance, instance) != 0)
			continue;
		d->waiting &= ~bit;
		if (d->waiting)
			return;
		*at = d->next;
		r->cb.idle(r->cb.ctx, instance, generation);
		free(d);
		return;
	}
}

static void quiet_from(struct router *r, uint64_t bit, uint32_t serial, bool busy)
{
	for (struct quiet **at = &r->quiets; *at; at = &(*at)->next) {
		struct quiet *q = *at;
		if (q->serial != serial)
			continue;
		q->busy |= busy;
		q->waiting &= ~bit;
		if (q->waiting)
			return;
		*at = q->next;
		r->cb.quieted(r->cb.ctx, q->instance, serial, q->busy);
		free(q);
		return;
	}
}

static bool on_activity(const struct peer *p, struct reader *rd)
{
	const struct router *r = p->router;
	uint32_t n = get_u32(rd);

	for (uint32_t i = 0; i < n && !rd->bad; i++) {
		struct counters growth;
		char space[200];
		get_str(rd, space, sizeof space);
		counters_get(rd, &growth);
		if (!rd->bad)
			r->cb.activity(r->cb.ctx, p->number, space, &growth);
	}
	return get_ok(rd);
}

/* Its word, but no other form than lines have: they stand between those of others. */
static bool on_log(struct peer *p, struct reader *rd)
{
	uint32_t lines = get_u32(rd);
	struct str bytes = get_bytes(rd);

	if (!get_ok(rd) || p->logs == PROXY_LOGS_MAX || !access_lines_ok(bytes, lines))
		return false;
	p->logs++;
	p->router->cb.log(p->router->cb.ctx, p->number, bytes, lines);
	return true;
}

void router_logged(struct router *r, uint64_t peer)
{
	for (struct peer *p = r->peers; p; p = p->next)
		if (p->number == peer) {
			p->logs--;
			tell(p, PROXY_LOGGED, 0, NULL, 0, NULL, 0);
		}
}

static bool on_ask(struct peer *p, uint32_t id, struct reader *rd)
{
	struct router *r = p->router;
	char space_id[25], token[128], client[64];
	cleanup_buf struct buf b = BUF_INIT;
	uint32_t wait = 0;
	char user[TICKET_ID] = "";

	get_str(rd, space_id, sizeof space_id);
	get_str(rd, token, sizeof token);
	get_str(rd, client, sizeof client);
	if (!get_ok(rd) || !ticket_id_ok(space_id))
		return false;
	enum gate_verdict verdict = r->cb.may_enter(r->cb.ctx, space_id, token, client, &wait, user);
	sodium_memzero(token, sizeof token);
	put_u8(&b, (uint8_t)verdict);
	put_u32(&b, wait);
	put_str(&b, user);
	tell(p, PROXY_VERDICT, id, b.data, b.len, NULL, 0);
	return true;
}

/* A frame about routes: each begins with the version. */
static void send_versioned(struct router *r, struct peer *p, uint32_t type, const void *rest, size_t n)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u64(&b, r->version);
	buf_add(&b, rest, n);
	tell(p, type, 0, b.data, b.len, NULL, 0);
}

static void snapshot(struct router *r, struct peer *p)
{
	cleanup_buf struct buf domain = BUF_INIT, count = BUF_INIT;
	struct entry *e, *next;

	put_str(&domain, r->domain);
	send_versioned(r, p, PROXY_RESET, domain.data, domain.len);
	HASH_ITER(hh, r->entries, e, next)
	send_versioned(r, p, PROXY_ROUTE, e->wire.data, e->wire.len);
	put_u32(&count, HASH_COUNT(r->entries));
	send_versioned(r, p, PROXY_COMMIT, count.data, count.len);
}

static void drop_peer(struct peer *p)
{
	struct router *r = p->router;

	for (struct peer **at = &r->peers; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	uint64_t bit = p->bit;
	r->cb.proxy_gone(r->cb.ctx, p->number);
	channel_close(p->channel);
	free(p);
	/* what it had in flight died with it: nobody waits for its confirmation */
	struct drain *d = r->drains;
	while (d) {
		struct drain *next = d->next;
		idle_from(r, bit, d->instance, d->generation);
		d = next;
	}
	struct quiet *q = r->quiets;
	while (q) {
		struct quiet *next = q->next;
		quiet_from(r, bit, q->serial, false);
		q = next;
	}
}

/* It runs on with the routes that it has, and no others. */
static void give_up(struct peer *p)
{
	const struct router *r = p->router;
	uint32_t proxy = p->proxy;

	drop_peer(p);
	r->cb.replace(r->cb.ctx, proxy);
}

static void on_behind(uv_timer_t *t)
{
	const struct router *r = t->data;
	struct peer *p = r->peers;

	while (p) {
		if (p->behind) {
			log_error("proxy %u does not read what it is told; its channel is closed", p->proxy);
			give_up(p);
			p = r->peers;
		} else {
			p = p->next;
		}
	}
}

static void send_spawner(struct router *r, struct peer *p)
{
	cleanup_close int sock = r->cb.spawner_socket(r->cb.ctx);

	p->spawner_at = uv_now(r->loop);
	if (sock >= 0)
		tell(p, PROXY_SPAWNER, 0, NULL, 0, &sock, 1);
}

static void on_frame(void *ctx, struct frame *f)
{
	struct peer *p = ctx;
	struct reader rd = reader_of(f->payload, f->len);
	char instance[81], space[200];
	bool ok = true;

	switch (f->type) {
	case PROXY_READY:
		break;
	case PROXY_STALE:
		get_u64(&rd);
		/* Who asks without reading has no use for them. */
		ok = get_ok(&rd) && !channel_queued(p->channel);
		if (ok && p->router->ready)
			snapshot(p->router, p);
		break;
	case PROXY_NO_SPAWNER:
		ok = get_ok(&rd);
		if (ok && uv_now(p->router->loop) - p->spawner_at >= SPAWNER_MS)
			send_spawner(p->router, p);
		break;
	case PROXY_IDLE: {
		ok = get_str(&rd, instance, sizeof instance);
		uint32_t generation = get_u32(&rd);
		ok = ok && get_ok(&rd);
		if (ok)
			idle_from(p->router, p->bit, instance, generation);
		break;
	}
	case PROXY_QUIETED: {
		uint32_t serial = get_u32(&rd), n = get_u32(&rd);
		ok = get_ok(&rd);
		if (ok)
			quiet_from(p->router, p->bit, serial, n > 0);
		break;
	}
	case PROXY_WAKE:
		ok = get_str(&rd, space, sizeof space) && get_ok(&rd);
		if (ok)
			p->router->cb.wake(p->router->cb.ctx, space);
		break;
	case PROXY_ACTIVITY:
		ok = on_activity(p, &rd);
		break;
	case PROXY_LOG:
		ok = on_log(p, &rd);
		break;
	case PROXY_ASK:
		ok = on_ask(p, f->id, &rd);
		sodium_memzero(f->payload, f->len);
		break;
	default:
		ok = false;
	}
	if (!ok) {
		log_error("proxy %u: malformed or unexpected frame %u; its channel is closed", p->proxy, f->type);
		give_up(p);
	}
}

/* -EBADMSG is told by one that lives. */
static void on_end(void *ctx, int err)
{
	struct peer *p = ctx;

	if (err == -EBADMSG) {
		log_error("proxy %u: what it says is malformed; its channel is closed", p->proxy);
		give_up(p);
	} else {
		drop_peer(p);
	}
}

static void send_keys(struct router *r, struct peer *p)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (!r->keys.nkeys)
		return;
	buf_reserve(&b, 1023); /* not moved: wiped below */
	ticket_keys_encode(&r->keys, &b);
	tell(p, PROXY_KEYS, 0, b.data, b.len, NULL, 0);
	sodium_memzero(b.data, b.len);
}

void router_set_keys(struct router *r, const struct ticket_keys *keys)
{
	r->keys = *keys;
	for (struct peer *p = r->peers; p; p = p->next)
		send_keys(r, p);
}

void router_expel(struct router *r, const char *user_id)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, user_id);
	for (struct peer *p = r->peers; p; p = p->next)
		tell(p, PROXY_EXPEL, 0, b.data, b.len, NULL, 0);
}

void router_renew_spawner(struct router *r)
{
	for (struct peer *p = r->peers; p; p = p->next)
		send_spawner(r, p);
}

void router_attach(struct router *r, int sock, uint32_t proxy)
{
	struct peer *p = xcalloc(1, sizeof *p);

	uint64_t used = 0;
	for (struct peer *q = r->peers; q; q = q->next)
		used |= q->bit;
	p->bit = ~used & -~used; /* the lowest free one; config allows far fewer than 64 proxies */
	p->number = ++r->numbers;
	p->proxy = proxy;
	p->router = r;
	p->next = r->peers;
	r->peers = p;
	p->channel = channel_open(r->loop, sock, on_frame, on_end, p);
	send_spawner(r, p);
	send_keys(r, p);
	if (r->ready)
		snapshot(r, p);
}

void router_ready(struct router *r)
{
	if (r->ready)
		return;
	r->ready = true;
	for (struct peer *p = r->peers; p; p = p->next)
		snapshot(r, p);
}

static void publish(struct router *r, uint32_t type, const struct buf *b)
{
	r->version++;
	if (!r->ready)
		return;
	for (struct peer *p = r->peers; p; p = p->next)
		send_versioned(r, p, type, b->data, b->len);
}

void router_set(struct router *r, const struct route *route)
{
	struct entry *e;

	HASH_FIND_STR(r->entries, route->host, e);
	if (!e) {
		e = xcalloc(1, sizeof *e);
		memcpy(e->host, route->host, sizeof e->host);
		HASH_ADD_STR(r->entries, host, e);
	}
	cleanup_buf struct buf wire = BUF_INIT;
	route_encode(route, &wire);
	if (e->wire.len == wire.len && memcmp(e->wire.data, wire.data, wire.len) == 0)
		return;
	r->bytes += wire.len - e->wire.len;
	buf_release(&e->wire);
	e->wire = wire;
	wire = BUF_INIT;
	publish(r, PROXY_ROUTE, &e->wire);
}

void router_remove(struct router *r, const char *host)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct entry *e;

	HASH_FIND_STR(r->entries, host, e);
	if (!e)
		return;
	put_str(&b, host);
	HASH_DEL(r->entries, e);
	r->bytes -= e->wire.len;
	buf_release(&e->wire);
	free(e);
	publish(r, PROXY_REMOVE, &b);
}

static void send_about(struct router *r, uint32_t type, const char *instance, uint32_t generation)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, instance);
	put_u32(&b, generation);
	for (struct peer *p = r->peers; p; p = p->next)
		tell(p, type, 0, b.data, b.len, NULL, 0);
}

void router_drain(struct router *r, const char *instance, uint32_t generation)
{
	uint64_t all = 0;

	for (struct peer *p = r->peers; p; p = p->next)
		all |= p->bit;
	if (all == 0 || !r->ready) {
		r->cb.idle(r->cb.ctx, instance, generation);
		return;
	}
	struct drain *d = xcalloc(1, sizeof *d);
	snprintf(d->instance, sizeof d->instance, "%s", instance);
	d->generation = generation;
	d->waiting = all;
	d->next = r->drains;
	r->drains = d;
	send_about(r, PROXY_DRAIN, instance, generation);
}

void router_cut(struct router *r, const char *instance, uint32_t generation)
{
	send_about(r, PROXY_CUT, instance, generation);
}

static void send_quiet(struct router *r, const char *endpoint, uint32_t generation, uint32_t serial)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, endpoint);
	put_u32(&b, generation);
	put_u32(&b, serial);
	for (struct peer *p = r->peers; p; p = p->next)
		tell(p, PROXY_QUIET, 0, b.data, b.len, NULL, 0);
}

void router_leave(struct router *r, const char *path)
{
	send_quiet(r, path, 0, 0); /* no quiet has the serial 0: nobody waits for the answers */
}

void router_quiet(struct router *r, const char *instance, uint32_t generation, uint32_t serial)
{
	uint64_t all = 0;

	for (struct peer *p = r->peers; p; p = p->next)
		all |= p->bit;
	if (all == 0 || !r->ready) {
		r->cb.quieted(r->cb.ctx, instance, serial, false);
		return;
	}
	struct quiet *q = xcalloc(1, sizeof *q);
	snprintf(q->instance, sizeof q->instance, "%s", instance);
	q->serial = serial;
	q->waiting = all;
	q->next = r->quiets;
	r->quiets = q;
	send_quiet(r, instance, generation, serial);
}
