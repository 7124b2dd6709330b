/* One connection: reads, hands requests and bodies to the handler, sends answers, ends. Everything that calls a handler
 * runs from conn_advance() or from a libuv callback, so from the loop (see internal.h about lifetimes). */
#include <string.h>

#include "base/log.h"
#include "spaced/http/internal.h"

static void alloc_cb(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	struct http_conn *c = h->data;

	(void)hint;
	*buf = uv_buf_init(c->s->read_buf, HTTP_READ_SIZE);
}

static void req_close(struct http_req *r)
{
	/* Whatever the handler still calls on it in its last callback must find a dead request. */
	r->mute = r->ended = true;
	if (r->announced && r->close_cb)
		r->close_cb(r, r->close_ctx);
	client_leave(r);
	req_free(r);
}

static void closed_cb(uv_handle_t *h)
{
	struct http_conn *c = h->data;

	if (c->req) {
		struct http_req *r = c->req;
		req_close(r);
		c->req = NULL;
	}
	buf_release(&c->in);
	buf_release(&c->out);
	buf_release(&c->flight);
	server_conn_closed(c);
}

void http_conn_close(struct http_conn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	uv_close((uv_handle_t *)&c->pipe, closed_cb);
}

void conn_kick(struct http_conn *c)
{
	if (c->kicked || c->closing)
		return;
	c->kicked = true;
	c->kick_next = c->s->kicks;
	c->s->kicks = c;
	server_kick(c->s);
}

/* A malformed message: told to the peer when an answer can still be given, else the connection ends. */
static void malformed(struct http_conn *c, int status, const char *why)
{
	struct http_req *r = c->req;

	if (!r) {
		/* Not even a first byte of a request that we could point at; or the dropped rest of a body. */
		if (c->in_message) {
			http_conn_close(c);
			return;
		}
		r = c->req = xcalloc(1, sizeof *r);
		r->c = c;
	}
	c->complete = true; /* nothing more is parsed */
	if (r->begun)
		http_conn_close(c);
	else
		reply_own_error(r, status, "%s", why);
}

static size_t feed(struct http_conn *c, const char *p, size_t n)
{
	size_t used;
	int status;
	const char *why;

	if (!parse_bytes(c, p, n, &used, &status, &why)) {
		malformed(c, status, why);
		return n;
	}
	if (!c->req && c->discarded > HTTP_DISCARD_MAX)
		http_conn_close(c);
	return used;
}

/* The answer is sent and nothing of it is pending. */
static void finish(struct http_conn *c)
{
	struct http_req *r = c->req;

	if (!r->keep_alive || c->s->draining)
		c->close_after = true;
	req_close(r);
	c->req = NULL;
	c->active = uv_now(c->s->loop);
}

static void deliver_body(struct http_req *r)
{
	struct buf body = r->body;

	r->body = BUF_INIT;
	if (r->body_cb.data)
		r->body_cb.data(r, body.data, body.len, r->body_ctx);
	buf_clear(&body);
	r->body = body; /* the allocation serves the next read */
}

/* One step for the current request; false when there is nothing to do. */
static bool step(struct http_conn *c)
{
	struct http_req *r = c->req;

	if (!r)
		return false;
	if (r->head_done && !r->announced && !r->mute) {
		if (!client_enter(r)) {
			reply_own_error(r, 429, "too many requests of your address are under way");
			return true;
		}
		r->announced = true;
		c->s->handler.on_request(r, c->s->ctx);
		return true;
	}
	if (!r->announced || r->paused || r->ended)
		return false;
	if (r->expect_continue && !r->begun && !r->complete && !r->received) {
		r->expect_continue = false;
		buf_adds(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
		return true;
	}
	if (r->body.len) {
		deliver_body(r);
		return true;
	}
	if (r->complete && !r->end_delivered) {
		r->end_delivered = true;
		if (r->body_cb.end)
			r->body_cb.end(r, r->body_ctx);
		return true;
	}
	return false;
}

static void write_cb(uv_write_t *w, int status)
{
	struct http_conn *c = w->data;

	c->writing = false;
	buf_clear(&c->flight);
	if (c->flight.cap > 2 * HTTP_DRAIN_LEVEL)
		buf_release(&c->flight);
	c->active = uv_now(c->s->loop);
	if (status < 0) {
		http_conn_close(c);
		return;
	}
	struct http_req *r = c->req;
	if (r && r->above && http_pending(r) < r->drain_level) {
		r->above = false;
		if (r->drain_cb && !r->ended)
			r->drain_cb(r, r->drain_ctx);
	}
	conn_advance(c);
}

static void flush(struct http_conn *c)
{
	if (c->writing || !c->out.len || c->closing)
		return;
	struct buf empty = c->flight;
	c->flight = c->out;
	c->out = empty;
	c->writing = true;
	c->write.data = c;
	uv_buf_t b = uv_buf_init(c->flight.data, (unsigned)c->flight.len);
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &b, 1, write_cb) < 0) {
		c->writing = false;
		http_conn_close(c);
	}
}

/* The peer sends no more. With a whole answer on its way that is only a half-close; else it is gone. */
static void at_eof(struct http_conn *c)
{
	if (c->req && c->req->ended)
		c->close_after = true;
	else
		http_conn_close(c);
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct http_conn *c = stream->data;

	if (n == 0 || c->closing)
		return;
	if (n < 0) {
		c->eof = true;
		uv_read_stop(stream);
		c->reading = false;
		at_eof(c);
		conn_advance(c);
		return;
	}
	/* A head has its time from its first byte, not from its last. */
	if (!c->in_message || !c->req || c->req->head_done)
		c->active = uv_now(c->s->loop);
	size_t used = 0;
	if (!c->in.len && !c->complete)
		used = feed(c, buf->base, (size_t)n);
	if (used < (size_t)n)
		buf_add(&c->in, buf->base + used, (size_t)n - used);
	conn_advance(c);
}

/* While an answer is made, reading goes on (within bounds): only so do we see that the peer has left. */
static bool wants_read(const struct http_conn *c)
{
	const struct http_req *r = c->req;

	if (c->eof || c->in.len >= HTTP_PIPELINED_MAX)
		return false;
	return c->complete || !r || r->ended || (!r->paused && !r->body.len);
}

static void set_reading(struct http_conn *c)
{
	bool want = wants_read(c);

	if (want == c->reading)
		return;
	c->reading = want;
	if (!want)
		uv_read_stop((uv_stream_t *)&c->pipe);
	else if (uv_read_start((uv_stream_t *)&c->pipe, alloc_cb, read_cb) < 0)
		http_conn_close(c);
}

static void shutdown_cb(uv_shutdown_t *req, int status)
{
	if (status < 0)
		http_conn_close(req->data);
}

/* A peer that is still sending a body would see its write fail, and might never read the answer: so the body is read
 * on for a while (RFC 9112 §9.6). */
static void end_connection(struct http_conn *c)
{
	if (c->complete || c->eof || !c->in_message) {
		http_conn_close(c);
	} else if (!c->lingering) {
		c->lingering = true;
		c->shutdown.data = c;
		if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->pipe, shutdown_cb) < 0)
			http_conn_close(c);
	}
}

void conn_advance(struct http_conn *c)
{
	while (!c->closing) {
		if (step(c))
			continue;
		flush(c);
		if (c->closing || c->writing)
			break;
		if (c->req && c->req->ended) {
			finish(c);
			continue;
		}
		if (!c->req && c->close_after) {
			end_connection(c);
			break;
		}
		if (!c->req && c->complete) {
			c->complete = c->in_message = false;
			llhttp_resume(&c->parser);
			continue;
		}
		if (!c->complete && c->in.len) {
			size_t used = feed(c, c->in.data, c->in.len);
			buf_consume(&c->in, used);
			continue;
		}
		break;
	}
	if (!c->closing)
		set_reading(c);
}

void conn_start(struct http_conn *c)
{
	parse_reset(c);
	c->active = uv_now(c->s->loop);
	conn_advance(c);
}

void conn_sweep(struct http_conn *c, uint64_t now)
{
	const struct http_limits *l = &c->s->limits;
	struct http_req *r = c->req;
	size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe);

	if (c->closing)
		return;
	if (c->writing && queued != c->queued)
		c->active = now;
	c->queued = queued;
	uint64_t quiet = now > c->active ? now - c->active : 0;
	if (c->lingering) {
		if (quiet > HTTP_LINGER_MS)
			http_conn_close(c);
	} else if (c->writing) {
		if (quiet > l->write_ms)
			http_conn_close(c);
	} else if (!c->in_message) {
		if (quiet > l->idle_ms)
			http_conn_close(c);
	} else if (r && !r->head_done) {
		if (quiet > l->head_ms && !r->mute) {
			c->complete = true;
			reply_own_error(r, 408, "the request head took too long");
		}
	} else if (!c->complete && !(r && r->paused) && quiet > l->body_ms) {
		if (r && !r->begun) {
			c->complete = true;
			reply_own_error(r, 408, "the request body stopped");
		} else {
			http_conn_close(c);
		}
	}
}
