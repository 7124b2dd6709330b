/* The channels to control and to the parent: routes come in, events go out (route.h). */
#include <errno.h>

#include "base/log.h"
#include "proxy/worker.h"

/* More than the questions of the gate can be, so that they keep nothing else from being heard. */
#define UNHEARD_MAX (512U << 10)

static void forget_control(struct worker *w)
{
	channel_close(w->control);
	w->control = NULL;
	feed_cut(&w->routes);
	gate_control_lost(w);
}

/* Nobody else may know that it is: control lives on, and so does this proxy. */
static void control_sent_garbage(struct worker *w)
{
	forget_control(w);
	if (w->parent)
		channel_send(w->parent, PROXY_LOST, 0, NULL, 0, NULL, 0);
}

static void on_control_end(void *ctx, int err)
{
	if (err == -EBADMSG) {
		log_error("what control says is malformed: the channel is closed");
		control_sent_garbage(ctx);
	} else {
		forget_control(ctx);
	}
}

/* What the feed says of a frame: false when the channel is to end. */
static bool fed(struct worker *w, enum feed_result result)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (result == FEED_ASK) {
		log_warn("the routes are not those of version %llu any more: all are asked for again",
			 (unsigned long long)w->routes.version);
		put_u64(&b, w->routes.version);
		channel_send(w->control, PROXY_STALE, 0, b.data, b.len, NULL, 0);
	}
	if (result == FEED_DONE) {
		hold_routes_changed(w);
		pool_routes_changed(w);
	}
	return result != FEED_GARBAGE;
}

static bool take_route(struct worker *w, struct reader *rd)
{
	uint64_t version = get_u64(rd);
	struct route r;

	if (route_decode(rd, &r) < 0)
		return false;
	bool ok = get_known(rd);
	const struct target *before = ok ? route_at(w->routes.served, r.host) : NULL;
	bool closing = r.gated && before && !before->gated;
	enum feed_result result = ok ? feed_set(&w->routes, version, &r) : FEED_GARBAGE;
	if (closing && result == FEED_DONE)
		gate_cut(w);
	route_release(&r);
	return fed(w, result);
}

static bool remove_route(struct worker *w, struct reader *rd)
{
	char host[ROUTE_HOST_MAX + 3];
	uint64_t version = get_u64(rd);

	get_str(rd, host, sizeof host);
	return get_known(rd) && fed(w, feed_remove(&w->routes, version, host));
}

static bool reset(struct worker *w, struct reader *rd)
{
	char domain[ROUTE_HOST_MAX + 3];
	uint64_t version = get_u64(rd);

	get_str(rd, domain, sizeof domain);
	return get_known(rd) && fed(w, feed_reset(&w->routes, version));
}

static bool commit(struct worker *w, struct reader *rd)
{
	uint64_t version = get_u64(rd);
	uint32_t routes = get_u32(rd);
	cleanup_buf struct buf b = BUF_INIT;

	if (!get_known(rd))
		return false;
	enum feed_result result = feed_commit(&w->routes, version, routes);
	if (result == FEED_DONE)
		gate_cut(w);
	bool ok = fed(w, result);
	if (result == FEED_DONE) {
		worker_listen(w);
		put_u64(&b, version);
		channel_send(w->control, PROXY_READY, 0, b.data, b.len, NULL, 0);
	}
	return ok;
}

static bool about_instance(struct worker *w, struct reader *rd,
			   void (*act)(struct worker *w, const char *instance, uint32_t generation))
{
	char instance[81];

	get_str(rd, instance, sizeof instance);
	uint32_t generation = get_u32(rd);
	if (!get_known(rd))
		return false;
	act(w, instance, generation);
	return true;
}

static bool quiet(struct worker *w, struct reader *rd)
{
	cleanup_buf struct buf b = BUF_INIT;
	char instance[81];

	get_str(rd, instance, sizeof instance);
	uint32_t generation = get_u32(rd), serial = get_u32(rd);
	if (!get_known(rd))
		return false;
	uint32_t busy = pool_quiet(w, instance, generation);
	put_u32(&b, serial);
	/* The ROUTE_HOLD that came before may be among what is dropped until a snapshot is there. */
	put_u32(&b, w->routes.stale ? 1 : busy);
	channel_send(w->control, PROXY_QUIETED, 0, b.data, b.len, NULL, 0);
	return true;
}

static bool take_spawner(struct worker *w, struct frame *f)
{
	if (f->nfds != 1)
		return false;
	spawn_attach(w, frame_take_fd(f, 0));
	return true;
}

static void on_control_frame(void *ctx, struct frame *f)
{
	struct worker *w = ctx;
	struct reader rd = reader_of(f->payload, f->len);
	bool ok = false;

	switch (f->type) {
	case PROXY_RESET:
		ok = reset(w, &rd);
		break;
	case PROXY_ROUTE:
		ok = take_route(w, &rd);
		break;
	case PROXY_REMOVE:
		ok = remove_route(w, &rd);
		break;
	case PROXY_COMMIT:
		ok = commit(w, &rd);
		break;
	case PROXY_DRAIN:
		ok = about_instance(w, &rd, pool_drain);
		break;
	case PROXY_CUT:
		ok = about_instance(w, &rd, pool_cut);
		break;
	case PROXY_QUIET:
		ok = quiet(w, &rd);
		break;
	case PROXY_SPAWNER:
		ok = take_spawner(w, f);
		break;
	case PROXY_KEYS:
		ok = gate_keys(w, &rd);
		break;
	case PROXY_VERDICT:
		ok = gate_verdict(w, f->id, &rd);
		break;
	case PROXY_EXPEL:
		ok = gate_expel(w, &rd);
		break;
	case PROXY_LOGGED:
		ok = get_known(&rd);
		access_log_sent(w);
		break;
	default:
		ok = true; /* of a newer one */
		break;
	}
	if (!ok && w->control) {
		log_error("frame %u from control is malformed: the channel is closed", f->type);
		control_sent_garbage(w);
	}
}

void control_channel_attach(struct worker *w, int fd)
{
	forget_control(w);
	w->control = channel_open(&w->loop, fd, on_control_frame, on_control_end, w);
	activity_forget(w);
	hold_new_control(w);
	gate_new_control(w);
	access_log_new_control(w);
}

bool control_listens(const struct worker *w)
{
	return w->control && channel_queued(w->control) < UNHEARD_MAX;
}

void control_say_idle(struct worker *w, const char *instance, uint32_t generation)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (!w->control)
		return;
	put_str(&b, instance);
	put_u32(&b, generation);
	channel_send(w->control, PROXY_IDLE, 0, b.data, b.len, NULL, 0);
}

static void on_parent_frame(void *ctx, struct frame *f)
{
	struct worker *w = ctx;

	struct reader rd = reader_of(f->payload, f->len);
	uint32_t ms = f->type == PROXY_RETIRE ? get_u32(&rd) : 0;

	if (f->type == PROXY_NEW_CONTROL && f->nfds == 1)
		control_channel_attach(w, frame_take_fd(f, 0));
	else if (f->type == PROXY_RETIRE && get_known(&rd))
		worker_drain(w, false, ms);
	else if (f->type != PROXY_SPAWNER || !take_spawner(w, f))
		log_error("frame %u from the parent is malformed", f->type);
}

static void on_parent_end(void *ctx, int err)
{
	struct worker *w = ctx;

	channel_close(w->parent);
	w->parent = NULL;
	worker_drain(w, true, w->limits.drain_ms);
}

void parent_say_listening(struct worker *w)
{
	if (w->parent)
		channel_send(w->parent, PROXY_READY, 0, NULL, 0, NULL, 0);
}

void parent_channel_attach(struct worker *w, int fd)
{
	w->parent = channel_open(&w->loop, fd, on_parent_frame, on_parent_end, w);
}
