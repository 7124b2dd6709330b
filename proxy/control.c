/* The channels to control and to the parent: routes come in, events go out (route.h). */
#include <errno.h>

#include "base/log.h"
#include "proxy/worker.h"

static void forget_control(struct worker *w)
{
	channel_close(w->control);
	w->control = NULL;
	route_table_free(w->next_routes);
	w->next_routes = NULL;
	gate_control_lost(w);
}

static void on_control_end(void *ctx, int err)
{
	if (err < 0)
		log_error("control's channel: %s", strerror(-err));
	forget_control(ctx);
}

static void control_sent_garbage(struct worker *w, uint32_t type)
{
	log_error("frame %u from control is malformed: the channel is closed", type);
	forget_control(w);
}

/* The routes that are served, or those of the snapshot that is coming in. */
static struct route_table *editing(struct worker *w)
{
	return w->next_routes ? w->next_routes : w->routes;
}

static bool take_route(struct worker *w, struct reader *rd)
{
	struct route r;

	if (route_decode(rd, &r) < 0)
		return false;
	bool ok = get_ok(rd);
	const struct target *before = ok ? route_lookup(w->routes, STRZ(r.host)) : NULL;
	bool closing = r.gated && before && !before->gated;
	if (ok)
		route_table_set(editing(w), &r);
	if (ok && closing)
		gate_cut(w, r.space_id);
	route_release(&r);
	if (ok && !w->next_routes)
		hold_routes_changed(w);
	return ok;
}

static bool commit(struct worker *w, struct reader *rd)
{
	uint64_t version = get_u64(rd);
	cleanup_buf struct buf b = BUF_INIT;

	if (!get_ok(rd))
		return false;
	if (w->next_routes) {
		route_table_free(w->routes);
		w->routes = w->next_routes;
		w->next_routes = NULL;
	}
	hold_routes_changed(w);
	worker_listen(w);
	put_u64(&b, version);
	channel_send(w->control, PROXY_READY, 0, b.data, b.len, NULL, 0);
	return true;
}

static bool quiet(struct worker *w, struct reader *rd)
{
	cleanup_buf struct buf b = BUF_INIT;
	char instance[81];

	get_str(rd, instance, sizeof instance);
	uint32_t generation = get_u32(rd), serial = get_u32(rd);
	if (!get_ok(rd))
		return false;
	put_u32(&b, serial);
	put_u32(&b, pool_quiet(w, instance, generation));
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
	char name[ROUTE_HOST_MAX + 3];
	bool ok = false;

	switch (f->type) {
	case PROXY_RESET:
		get_str(&rd, name, sizeof name);
		ok = get_ok(&rd);
		route_table_free(w->next_routes);
		w->next_routes = route_table_new();
		break;
	case PROXY_ROUTE:
		ok = take_route(w, &rd);
		break;
	case PROXY_REMOVE:
		get_str(&rd, name, sizeof name);
		ok = get_ok(&rd);
		if (ok)
			route_table_remove(editing(w), name);
		if (ok && !w->next_routes)
			hold_routes_changed(w);
		break;
	case PROXY_COMMIT:
		ok = commit(w, &rd);
		break;
	case PROXY_DRAIN: {
		char instance[81];
		get_str(&rd, instance, sizeof instance);
		uint32_t generation = get_u32(&rd);
		ok = get_ok(&rd);
		if (ok)
			pool_drain(w, instance, generation);
		break;
	}
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
	default:
		break;
	}
	if (!ok && w->control)
		control_sent_garbage(w, f->type);
}

void control_channel_attach(struct worker *w, int fd)
{
	forget_control(w);
	w->control = channel_open(&w->loop, fd, on_control_frame, on_control_end, w);
	activity_forget(w);
	hold_new_control(w);
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

	if (f->type == PROXY_NEW_CONTROL && f->nfds == 1)
		control_channel_attach(w, frame_take_fd(f, 0));
	else if (f->type != PROXY_SPAWNER || !take_spawner(w, f))
		log_error("frame %u from the parent is malformed", f->type);
}

static void on_parent_end(void *ctx, int err)
{
	struct worker *w = ctx;

	channel_close(w->parent);
	w->parent = NULL;
	worker_drain(w);
}

void parent_channel_attach(struct worker *w, int fd)
{
	w->parent = channel_open(&w->loop, fd, on_parent_frame, on_parent_end, w);
}
