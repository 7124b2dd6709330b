/* The spawner's channel: sockets made inside the network namespace of an app, in small batches (SPAWN_OPEN). */
#include <errno.h>

#include "proxy/worker.h"
#include "sandbox/spawner.h"

struct open_call {
	UT_hash_handle hh;
	uint32_t id;
	uint32_t n;
	struct pool *pool; /* lives on while pool->opens is not 0 */
};

static void answer(struct worker *w, struct open_call *call, struct frame *f, int error)
{
	struct pool *p = call->pool;
	uint32_t n = call->n;

	HASH_DEL(w->open_calls, call);
	free(call);
	pool_opened(w, p, f, n, error);
}

static void on_frame(void *ctx, struct frame *f)
{
	struct worker *w = ctx;
	struct open_call *call;
	uint32_t id = f->id;

	HASH_FIND(hh, w->open_calls, &id, sizeof id, call);
	if (!call)
		return;
	if (f->type == SPAWN_OK && f->nfds > 0) {
		answer(w, call, f, 0);
		return;
	}
	struct reader r = reader_of(f->payload, f->len);
	uint32_t code = get_u32(&r);
	answer(w, call, NULL, r.bad || code == 0 || code > 4095 ? -EPROTO : -(int)code);
}

/* So many are here already: clients, or idle connections that soon make room. */
static void on_no_room(void *ctx, uint32_t type, uint32_t id)
{
	struct worker *w = ctx;
	struct open_call *call;

	HASH_FIND(hh, w->open_calls, &id, sizeof id, call);
	if (call && type == SPAWN_OK)
		answer(w, call, NULL, -EMFILE);
}

static void on_end(void *ctx, int err)
{
	struct worker *w = ctx;
	struct open_call *call, *next;

	channel_close(w->spawner);
	w->spawner = NULL;
	HASH_ITER(hh, w->open_calls, call, next)
	answer(w, call, NULL, -ENOTCONN);
}

void spawn_attach(struct worker *w, int fd)
{
	if (w->spawner)
		on_end(w, 0);
	w->spawner = channel_open(&w->loop, fd, on_frame, on_end, w);
	channel_on_no_room(w->spawner, on_no_room);
	pool_new_spawner(w);
}

/* A new spawner is handed over unasked. But it may live, and this channel alone have ended. */
void spawn_tick(struct worker *w)
{
	if (!w->spawner && control_listens(w))
		channel_send(w->control, PROXY_NO_SPAWNER, 0, NULL, 0, NULL, 0);
}

void spawn_open(struct worker *w, struct pool *p, uint32_t n)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (!w->spawner)
		return;
	put_str(&b, p->name);
	put_u32(&b, n);
	uint32_t id = ++w->open_ids ? w->open_ids : ++w->open_ids;
	channel_send(w->spawner, SPAWN_OPEN, id, b.data, b.len, NULL, 0);
	struct open_call *call = xcalloc(1, sizeof *call);
	call->id = id;
	call->n = n;
	call->pool = p;
	p->opens += n;
	HASH_ADD(hh, w->open_calls, id, sizeof call->id, call);
}
