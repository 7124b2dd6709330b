/* Bodies both ways: decoded from the one framing, written in the other, never more than one block ahead of the reader.
 * And WebSockets: after the handshake just bytes. Called by client.c and upstream.c with what was read. */
#include <errno.h>

#include "proxy/credentials.h"
#include "proxy/worker.h"

#define INVALID_RESPONSE "The app gave an invalid response"
#define INTERIM_MAX 8 /* 1xx responses before the real one */
/* Slow uploads hold a connection: after a grace of 30 s a body must come at this many bytes per second (slowloris). */
#define BODY_GRACE_MS 30000
#define BODY_RATE 64

/* What goes out in one write: head, chunk size, spans, chunk end. Only `n` is ever set at the start: zeros for all of it would
 * cost more than a small body. */
struct batch {
	uv_buf_t bufs[HTTP1_SPANS + 3];
	unsigned n;
	char size[20];
};

static void batch_add(struct batch *b, const void *p, size_t n)
{
	if (n)
		b->bufs[b->n++] = uv_buf_init((char *)(uintptr_t)p, (unsigned)n);
}

/* `last`: the body ends with these. */
static size_t batch_body(struct batch *b, bool chunked, const struct str *spans, size_t nspans, bool last)
{
	size_t total = 0;

	for (size_t i = 0; i < nspans; i++)
		total += spans[i].n;
	if (!chunked || total)
		if (chunked)
			batch_add(b, b->size, (size_t)snprintf(b->size, sizeof b->size, "%zx\r\n", total));
	for (size_t i = 0; i < nspans; i++)
		batch_add(b, spans[i].p, spans[i].n);
	if (chunked && last)
		batch_add(b, total ? "\r\n0\r\n\r\n" : "0\r\n\r\n", total ? 7 : 5);
	else if (chunked && total)
		batch_add(b, "\r\n", 2);
	return total;
}

/* After a large piece that went through as it is: what came behind it, without the last byte of a body, whose end is for
 * the caller's own way. Counts into `left` (unless NULL) and returns the bytes, or -EPIPE. */
static ssize_t pass_on(struct conn *from, struct conn *to, size_t piece, uint64_t *left)
{
	ssize_t total = 0, n;

	if (piece < SPLICE_WORTH)
		return 0;
	for (int i = 0; i < SPLICE_TIMES && turn_may_read(from); i++) {
		n = conn_splice(from, to, !left ? SIZE_MAX : *left ? *left - 1 : 0);
		if (n == -EPIPE)
			return n;
		if (n < 0)
			break;
		total += n;
		if (left)
			*left -= (uint64_t)n;
	}
	return total;
}

static size_t tunnel_up(struct exchange *x, char *p, size_t n)
{
	uv_buf_t b = uv_buf_init(p, (unsigned)n);

	if (x->u->conn.pending)
		return 0;
	count_in(x, n);
	if (x->c->conn.timed.kind == DL_STALL)
		deadline_set(&x->c->conn, DL_STALL);
	ssize_t more = conn_write(&x->u->conn, &b, 1);
	if (more == 0)
		more = pass_on(&x->c->conn, &x->u->conn, n, NULL);
	if (more < 0)
		client_cut(x->c, false);
	else
		count_in(x, (uint64_t)more);
	return n;
}

static void tunnel_down(struct exchange *x, char *p, size_t n)
{
	struct conn *from = &x->u->conn, *to = &x->c->conn;
	uv_buf_t b = uv_buf_init(p, (unsigned)n);
	ssize_t more = conn_write(to, &b, 1);

	if (more == 0)
		more = pass_on(from, to, n, NULL);
	if (more < 0) {
		client_failed(x->c);
		return;
	}
	count_out(x, n + (uint64_t)more);
	if (to->pending)
		conn_read_stop(from);
	if (to->timed.kind == DL_STALL)
		deadline_set(to, DL_STALL);
}

/* The answer to the handshake, and frames of either side that came before it. */
static void tunnel_begin(struct exchange *x, char *p, size_t n)
{
	struct client *c = x->c;
	struct buf *head = &c->conn.w->out;
	uv_buf_t b = uv_buf_init(head->data, (unsigned)head->len);

	count_out(x, head->len);
	if (conn_write(&c->conn, &b, 1) < 0) {
		client_failed(c);
		return;
	}
	if (n)
		tunnel_down(x, p, n);
	client_resume(c);
}

static bool too_slow(struct exchange *x, size_t n)
{
	uint64_t now = uv_now(&x->c->conn.w->loop);

	if (x->blocked_since) {
		x->body_since += now - x->blocked_since; /* that was the app's time, not the client's */
		x->blocked_since = 0;
	}
	x->body_bytes += n;
	uint64_t ms = now - x->body_since;
	return ms > BODY_GRACE_MS && x->body_bytes < ms / 1000 * BODY_RATE;
}

/* After the head went to the app a bad body ends both connections: nobody must take its rest for a request. */
static void bad_body(struct exchange *x, int status, const char *why)
{
	x->refused = status == 408 ? REFUSED_SLOW : REFUSED_MALFORMED;
	if (x->res_head)
		client_cut(x->c, false);
	else
		exchange_error(x, status, page_reason(status), why);
}

size_t relay_request(struct exchange *x, char *p, size_t n)
{
	struct upstream *u = x->u;
	struct str spans[HTTP1_SPANS];
	size_t nspans = 1;
	ssize_t used = (ssize_t)n;
	struct batch b;

	if (x->tunnel)
		return tunnel_up(x, p, n);
	spans[0] = (struct str){p, n};
	b.n = 0;
	if (x->upload_broken)
		return n; /* the app stopped reading: its answer still counts, the rest of the body does not */
	if (!u || !u->connected || u->conn.pending) {
		if (!x->blocked_since)
			x->blocked_since = uv_now(&x->c->conn.w->loop);
		return 0;
	}
	if (x->req_body == HTTP1_LENGTH) {
		if (x->req_left < n)
			spans[0].n = (size_t)x->req_left;
		used = (ssize_t)spans[0].n;
		x->req_left -= spans[0].n;
		x->req_done = x->req_left == 0;
	} else {
		used = http1_chunked_decode(x->req_chunked, p, n, spans, &nspans);
		if (used < 0) {
			bad_body(x, 400, "malformed chunked body");
			return n;
		}
		x->req_done = x->req_chunked->done;
	}
	if (too_slow(x, (size_t)used)) {
		bad_body(x, 408, "The body of the request comes too slowly.");
		return n;
	}
	if (!x->head_sent) {
		batch_add(&b, x->head.data, x->head.len);
		x->sent_at = uv_now(&x->c->conn.w->loop);
	}
	x->head_sent = true;
	x->expect_continue = false; /* it did not wait */
	size_t total = batch_body(&b, x->req_body == HTTP1_CHUNKED, spans, nspans, x->req_done);
	count_in(x, total);
	deadline_set(&x->c->conn, x->req_done && !x->res_head ? DL_RESPONSE : DL_STALL);
	ssize_t more = b.n ? conn_write(&u->conn, b.bufs, b.n) : 0;
	if (more == 0)
		knock_sent(u);
	if (more == 0 && x->req_body == HTTP1_LENGTH)
		more = pass_on(&x->c->conn, &u->conn, (size_t)used, &x->req_left);
	if (more < 0) {
		x->upload_broken = true;
		return (size_t)used;
	}
	x->body_bytes += (uint64_t)more;
	count_in(x, (uint64_t)more);
	return (size_t)used;
}

/* The head of the final response goes into w->out; it is written together with the first bytes of the body. */
static void begin_response(struct exchange *x, struct http1_response *r)
{
	struct worker *w = x->c->conn.w;

	x->res_head = true;
	x->status = r->status;
	x->answered_at = uv_now(&w->loop);
	x->res_body = r->body;
	x->res_left = r->length;
	x->reusable = r->keep_alive && !r->upgrade;
	x->tunnel = r->upgrade;
	x->space->count.now[GAUGE_WEBSOCKETS] += r->upgrade;
	x->event_stream = r->event_stream;
	if (r->body == HTTP1_CHUNKED) {
		x->res_chunked = xmalloc(sizeof *x->res_chunked);
		http1_chunked_init(x->res_chunked);
	}
	x->out_body = r->body;
	if (r->body == HTTP1_CHUNKED || r->body == HTTP1_UNTIL_CLOSE)
		x->out_body = x->minor ? HTTP1_CHUNKED : HTTP1_UNTIL_CLOSE;
	/* An answer before the request is whole: neither connection can be used again. */
	if (!x->req_done || x->out_body == HTTP1_UNTIL_CLOSE || x->tunnel || w->draining || x->c->conn.eof)
		x->keep_alive = false;
	cleanup_buf struct buf cookie = BUF_INIT;
	const char *mine = x->target->endpoints[x->endpoint].cookie;
	if (mine[0] && x->target->nendpoints > 1 && strcmp(mine, x->sticky) != 0)
		sticky_set_cookie(mine, gate_secure(w), &cookie);
	struct http1_reply how = {.client_minor = x->minor,
				  .keep_alive = x->keep_alive,
				  .body = x->out_body,
				  .headers = x->target->headers,
				  .request_id = STRZ(x->request_id),
				  .date = worker_date(w),
				  .cookie = {cookie.data, cookie.len}};
	if (x->target->space_id[0])
		credentials_guard(r);
	http1_write_response(r, &how, &w->out);
	if (x->tunnel || x->event_stream) {
		buf_release(&x->head);
		conn_keepalive(&x->c->conn);
		deadline_clear(&x->c->conn);
	}
}

/* One head from `p`. 1: the final one, in w->out; 0: an interim one, skipped; -1: refused, the exchange is over. */
static int take_head(struct exchange *x, const char *p, size_t n)
{
	struct worker *w = x->c->conn.w;

	if (http1_parse_response(p, n, x->method, x->websocket, &w->res_limits, &w->res) < 0) {
		exchange_error(x, 502, INVALID_RESPONSE, w->res.why);
		return -1;
	}
	if (w->res.status < 200 && !w->res.upgrade) {
		if (++x->interim <= INTERIM_MAX)
			return 0;
		exchange_error(x, 502, INVALID_RESPONSE, "too many interim responses");
		return -1;
	}
	if (w->res.event_stream && gate_closed_since(x)) {
		client_cut(x->c, false);
		return -1;
	}
	begin_response(x, &w->res);
	return 1;
}

static int write_response(struct exchange *x, struct batch *b, bool last)
{
	struct conn *c = &x->c->conn;

	return last && !x->keep_alive ? conn_write_last(c, b->bufs, b->n) : conn_write(c, b->bufs, b->n);
}

/* While its head has not gone out it can be said; else the client must see that the body is not whole. */
static void bad_response_body(struct exchange *x, bool with_head)
{
	if (with_head)
		exchange_error(x, 502, INVALID_RESPONSE, "malformed chunked body");
	else
		client_cut(x->c, x->out_body == HTTP1_UNTIL_CLOSE);
}

/* Body bytes and, when it was just made, the head before them. */
static void send_body(struct exchange *x, char *p, size_t n, bool with_head)
{
	struct client *c = x->c;
	struct upstream *u = x->u;
	struct worker *w = c->conn.w;
	struct str spans[HTTP1_SPANS];
	size_t nspans = 1, used = n;
	bool last = false;
	struct batch b;

	spans[0] = (struct str){p, n};
	b.n = 0;
	if (x->res_body == HTTP1_NO_BODY) {
		spans[0].n = used = 0;
		last = true;
	} else if (x->res_body == HTTP1_LENGTH) {
		if (x->res_left < n)
			spans[0].n = used = (size_t)x->res_left;
		x->res_left -= used;
		last = x->res_left == 0;
	} else if (x->res_body == HTTP1_CHUNKED) {
		ssize_t k = http1_chunked_decode(x->res_chunked, p, n, spans, &nspans);
		if (k < 0) {
			bad_response_body(x, with_head);
			return;
		}
		used = (size_t)k;
		last = x->res_chunked->done;
	}
	if (with_head)
		batch_add(&b, w->out.data, w->out.len);
	size_t total = batch_body(&b, x->out_body == HTTP1_CHUNKED, spans, nspans, last);
	count_out(x, total + (with_head ? w->out.len : 0));
	if (b.n && write_response(x, &b, last) < 0) {
		client_failed(c);
		return;
	}
	if (used < n)
		x->reusable = false; /* bytes that nobody asked for (response queue poisoning) */
	if (last) {
		x->res_done = true;
		exchange_done(x);
		return;
	}
	if (n < SPLICE_WORTH && !x->event_stream)
		conn_acknowledge(&u->conn);
	ssize_t more = 0;
	if (x->res_body == HTTP1_LENGTH)
		more = pass_on(&u->conn, &c->conn, n, &x->res_left);
	if (more < 0) {
		client_failed(c);
		return;
	}
	count_out(x, (uint64_t)more);
	if (c->conn.pending)
		conn_read_stop(&u->conn);
	if (c->conn.timed.kind == DL_STALL || !x->event_stream)
		deadline_set(&c->conn, DL_STALL);
}

void relay_response_bytes(struct upstream *u, char *p, size_t n)
{
	struct exchange *x = u->x;
	struct worker *w = u->conn.w;
	cleanup_buf struct buf held = BUF_INIT;
	bool with_head = false;

	if (x->tunnel) {
		tunnel_down(x, p, n);
		return;
	}
	if (u->conn.in.len) {
		held = u->conn.in;
		u->conn.in = BUF_INIT;
		buf_add(&held, p, n);
		p = held.data;
		n = held.len;
	}
	while (!x->res_head) {
		ssize_t end = http1_head_end(p, n, u->conn.seen);
		if (!http1_begins_response(p, n)) {
			exchange_error(x, 502, INVALID_RESPONSE, "malformed status line");
			return;
		}
		if (end < 0 || (end ? (size_t)end : n) > w->res_limits.head_bytes) {
			exchange_error(x, 502, INVALID_RESPONSE, end < 0 ? "a bare line feed" : "the head is too long");
			return;
		}
		if (end == 0) {
			buf_add(&u->conn.in, p, n);
			u->conn.seen = n;
			conn_acknowledge(&u->conn);
			return;
		}
		u->conn.seen = 0;
		buf_clear(&w->out);
		int r = take_head(x, p, (size_t)end);
		if (r < 0)
			return;
		p += end;
		n -= (size_t)end;
		with_head = r > 0;
		if (!with_head && n == 0)
			return;
	}
	if (x->tunnel)
		tunnel_begin(x, p, n);
	else
		send_body(x, p, n, with_head);
}

void relay_response_eof(struct exchange *x)
{
	struct batch b;

	b.n = 0;
	batch_body(&b, x->out_body == HTTP1_CHUNKED, NULL, 0, true);
	if (b.n && write_response(x, &b, true) < 0) {
		client_failed(x->c);
		return;
	}
	x->res_done = true;
	x->reusable = false;
	exchange_done(x);
}

bool relay_tunnel_over(struct exchange *x)
{
	struct client *c = x->c;

	if (!c->conn.eof || !x->u->conn.eof || x->u->conn.pending)
		return false;
	exchange_abort(x);
	client_next(c, false, false);
	return true;
}

void relay_tunnel_eof(struct exchange *x, struct conn *from)
{
	struct client *c = x->c;

	if (relay_tunnel_over(x))
		return;
	conn_shutdown(from == &c->conn ? &x->u->conn : &c->conn);
	deadline_set(&c->conn, DL_STALL); /* half closed: not for ever */
}
