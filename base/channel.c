/* See channel.h. */
#include "base/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

struct outgoing {
	struct outgoing *next;
	uint32_t type, id;
	size_t len;
	int fds[FRAME_MAX_FDS];
	int nfds;
	uint8_t payload[];
};

struct channel {
	uv_poll_t poll;
	int sock;
	bool ended, closing;
	struct outgoing *first, **last;
	size_t queued;
	channel_frame_cb on_frame;
	channel_end_cb on_end;
	void (*on_no_room)(void *ctx, uint32_t type, uint32_t id);
	void *ctx;
};

static void outgoing_free(struct outgoing *o)
{
	for (int i = 0; i < o->nfds; i++)
		close(o->fds[i]);
	free(o);
}

static void drop_queue(struct channel *c)
{
	while (c->first) {
		struct outgoing *o = c->first;
		c->first = o->next;
		outgoing_free(o);
	}
	c->last = &c->first;
	c->queued = 0;
}

static void end(struct channel *c, int err)
{
	if (c->ended || c->closing)
		return;
	c->ended = true;
	uv_poll_stop(&c->poll);
	drop_queue(c);
	c->on_end(c->ctx, err);
}

static void on_poll(uv_poll_t *h, int status, int events);

static void watch(struct channel *c)
{
	if (!c->ended && !c->closing)
		uv_poll_start(&c->poll, UV_READABLE | UV_DISCONNECT | (c->first ? UV_WRITABLE : 0), on_poll);
}

static void flush(struct channel *c)
{
	while (c->first) {
		struct outgoing *o = c->first;
		int r = frame_send(c->sock, o->type, o->id, o->payload, o->len, o->fds, o->nfds);
		if (frame_again(r))
			return;
		if (r < 0) {
			end(c, r);
			return;
		}
		c->first = o->next;
		if (!c->first)
			c->last = &c->first;
		c->queued -= sizeof *o + o->len;
		outgoing_free(o);
	}
}

/* A bounded number of frames per turn, so that one busy peer does not starve the loop. */
static void drain(struct channel *c)
{
	for (int i = 0; i < 32 && !c->ended && !c->closing; i++) {
		struct frame f;
		int r = frame_recv(c->sock, &f);
		if (r == -EAGAIN)
			return;
		if (r == -EMFILE && c->on_no_room) {
			c->on_no_room(c->ctx, f.type, f.id);
			continue;
		}
		if (r <= 0) {
			end(c, r);
			return;
		}
		c->on_frame(c->ctx, &f);
		frame_release(&f);
	}
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct channel *c = h->data;

	if (status < 0) {
		end(c, status);
		return;
	}
	if (events & (UV_READABLE | UV_DISCONNECT))
		drain(c);
	if (!c->ended && !c->closing && (events & UV_WRITABLE))
		flush(c);
	watch(c);
}

struct channel *channel_open(uv_loop_t *loop, int sock, channel_frame_cb on_frame, channel_end_cb on_end, void *ctx)
{
	struct channel *c = xcalloc(1, sizeof *c);

	c->sock = sock;
	c->on_frame = on_frame;
	c->on_end = on_end;
	c->ctx = ctx;
	c->last = &c->first;
	io_set_nonblock(sock, true);
	uv_poll_init(loop, &c->poll, sock);
	c->poll.data = c;
	watch(c);
	return c;
}

void channel_on_no_room(struct channel *c, void (*cb)(void *ctx, uint32_t type, uint32_t id))
{
	c->on_no_room = cb;
}

void channel_send(struct channel *c, uint32_t type, uint32_t id, const void *payload, size_t len, const int *fds,
		  int nfds)
{
	if (c->ended || c->closing)
		return;
	if (!c->first) {
		int r = frame_send(c->sock, type, id, payload, len, fds, nfds);
		if (r == 0)
			return;
		if (!frame_again(r) && r != -EPIPE && r != -ECONNRESET && r != -ENOTCONN)
			abort(); /* too long or too many descriptors: a bug of ours */
				 /* a dead peer shows on the next poll, where the owner expects it */
	}
	struct outgoing *o = xcalloc(1, sizeof *o + len);
	o->type = type;
	o->id = id;
	o->len = len;
	if (len)
		memcpy(o->payload, payload, len);
	for (int i = 0; i < nfds; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		if (fd >= 0)
			o->fds[o->nfds++] = fd;
	}
	*c->last = o;
	c->last = &o->next;
	c->queued += sizeof *o + len;
	watch(c);
}

size_t channel_queued(const struct channel *c)
{
	return c->queued;
}

static void on_closed(uv_handle_t *h)
{
	struct channel *c = h->data;

	close(c->sock);
	free(c);
}

void channel_close(struct channel *c)
{
	if (!c || c->closing)
		return;
	c->closing = true;
	drop_queue(c);
	uv_poll_stop(&c->poll);
	uv_close((uv_handle_t *)&c->poll, on_closed);
}
