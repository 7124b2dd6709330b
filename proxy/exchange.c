/* One request and its response: where it goes, when it is sent, what is answered when that fails. The bodies: relay.c. */
#include <errno.h>

#include "proxy/worker.h"

#define FREE_HEAD_MAX 4096

static struct exchange *exchange_new(struct worker *w, struct client *c)
{
	struct exchange *x = w->free_exchanges;

	if (x) {
		w->free_exchanges = x->next;
		struct buf head = x->head, seen = x->seen;
		memset(x, 0, sizeof *x);
		x->head = head;
		x->seen = seen;
	} else {
		x = xcalloc(1, sizeof *x);
	}
	x->c = c;
	c->x = x;
	x->space = w->nobody;
	x->began = uv_now(&w->loop);
	w->nexchanges++;
	return x;
}

/* 499: who asked has left before an answer (the word of nginx for it). */
static void count_end(struct exchange *x)
{
	struct counters *count = &x->space->count;

	if (!x->status)
		x->status = 499;
	if (x->refused)
		count->n[COUNT_REFUSED + x->refused]++;
	if (x->tunnel)
		count->now[GAUGE_WEBSOCKETS]--;
	count->now[GAUGE_OPEN]--;
	counters_answered(count, x->status, uv_now(&x->c->conn.w->loop) - x->began, x->tunnel || x->event_stream);
}

static void exchange_free(struct exchange *x)
{
	struct worker *w = x->c->conn.w;

	hold_cancel(x);
	if (x->waiting)
		pool_cancel(x);
	if (x->ask)
		gate_forget(x);
	if (x->pool)
		pool_leave(x->pool);
	peer_leave(w, &x->from.peer);
	count_end(x);
	access_log_exchange(x);
	target_unref(x->target);
	free(x->req_chunked);
	free(x->res_chunked);
	x->c->x = NULL;
	w->nexchanges--;
	if (x->head.cap > FREE_HEAD_MAX)
		buf_release(&x->head);
	buf_clear(&x->head);
	buf_clear(&x->seen);
	x->next = w->free_exchanges;
	w->free_exchanges = x;
}

const char *worker_date(struct worker *w)
{
	uint64_t now = uv_now(&w->loop) / 500;

	if (w->date_at != now || !w->date[0]) {
		time_t t = time(NULL);
		struct tm tm;
		gmtime_r(&t, &tm);
		strftime(w->date, sizeof w->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
		w->date_at = now;
	}
	return w->date;
}

static void name_request(struct worker *w, struct exchange *x, struct str own)
{
	static const char hex[] = "0123456789abcdef";

	if (own.n) {
		memcpy(x->request_id, own.p, own.n);
		x->request_id[own.n] = '\0';
		return;
	}
	memcpy(x->request_id, w->id_prefix, 16);
	uint64_t id = ++w->ids;
	for (int i = 31; i >= 16; i--, id >>= 4)
		x->request_id[i] = hex[id & 15];
	x->request_id[32] = '\0';
}

/* What has to be remembered of the request: the parsed head itself is gone after this event. */
static void take_request(struct exchange *x, const struct http1_request *r)
{
	struct worker *w = x->c->conn.w;

	x->method = r->method;
	x->minor = r->minor;
	x->req_body = r->body;
	x->req_left = r->length;
	x->req_done = r->body == HTTP1_NO_BODY;
	x->keep_alive = r->keep_alive;
	x->expect_continue = r->expect_continue;
	x->websocket = r->websocket;
	x->format = page_format_of(r->accept);
	x->body_since = uv_now(&w->loop);
	if (r->body == HTTP1_CHUNKED) {
		x->req_chunked = xmalloc(sizeof *x->req_chunked);
		http1_chunked_init(x->req_chunked);
	}
	name_request(w, x, r->request_id);
}

static void route_page(struct exchange *x, const struct target *t)
{
	struct page page = {.status = t->page_status,
			    .title = t->page_title[0] ? t->page_title : page_reason(t->page_status),
			    .text = t->page_text,
			    .refresh = t->page_refresh,
			    .retry_after = t->page_refresh ? 3 : 0,
			    .headers = t->headers};
	exchange_page(x, &page);
}

static void acquire(struct exchange *x, bool fresh)
{
	deadline_set(&x->c->conn, DL_CONNECT);
	int r = pool_acquire(x->pool, x, fresh);
	if (r < 0)
		exchange_upstream_lost(x, r);
}

void exchange_start(struct client *c, size_t head)
{
	struct worker *w = c->conn.w;
	struct http1_request *r = &w->req;
	struct exchange *x = exchange_new(w, c);
	const struct target *t = route_lookup(w->routes.served, STRZ(r->host));

	take_request(x, r);
	peer_visitor(x, r);
	access_log_note(x, r);
	deadline_clear(&c->conn);
	if (t)
		x->space = space_of(w, t->space);
	c->place = turn_place(x->space->who);
	x->space->count.n[COUNT_REQUESTS]++;
	x->space->count.now[GAUGE_OPEN]++;
	count_in(x, head);
	if (t)
		x->target = target_ref(t);
	if (limits_refuse_client(x))
		return;
	if (!t) {
		x->refused = REFUSED_HOST;
		exchange_error(x, 404, "There is nothing at this address",
			       "No Space is served under this host name. Check the spelling of the address.");
		return;
	}
	if (t->sticky)
		sticky_find(r, t, gate_secure(w), x->sticky);
	enum gate_state gate = t->space_id[0] ? gate_enter(x, r) : GATE_OPEN;
	if (gate == GATE_CLOSED)
		return;
	if (t->kind != ROUTE_PAGE) {
		struct http1_forward f = {.client = x->from.addr,
					  .proto = x->from.proto,
					  .port = x->from.port,
					  .request_id = STRZ(x->request_id),
					  .site = t->site};
		buf_reserve(&x->head, 1023);
		http1_write_request(r, &f, &x->head);
	}
	if (t->kind == ROUTE_HOLD || gate == GATE_ASKING)
		x->hold_rule = hold_rule_of(r, &w->limits);
	if (gate == GATE_OPEN)
		exchange_admitted(x);
	else
		deadline_set(&c->conn, DL_CONNECT);
}

void exchange_admitted(struct exchange *x)
{
	struct worker *w = x->c->conn.w;
	const struct target *t = x->target;

	if (limits_refuse_space(x))
		return;
	if (t->kind == ROUTE_PAGE) {
		route_page(x, t);
		return;
	}
	if (t->space[0] && x->space->count.now[GAUGE_OPEN] > w->limits.per_space) {
		x->refused = REFUSED_SPACE_REQUESTS;
		exchange_error(x, 503, "This Space is answering too many requests", "Try again in a few seconds.");
		return;
	}
	if (t->kind == ROUTE_HOLD)
		hold_request(x, x->hold_rule);
	else
		exchange_dispatch(x);
}

/* Of the endpoint that is to answer it; false: there is none. */
static bool enter_pool(struct exchange *x)
{
	int i = balance_pick(x);

	if (i < 0)
		return false;
	struct pool *p = pool_of(x->c->conn.w, x->target, (unsigned)i);
	if (p->draining)
		return false;
	x->endpoint = (uint8_t)i;
	x->pool = p;
	p->busy++;
	return true;
}

void exchange_dispatch(struct exchange *x)
{
	const struct target *t = x->target;

	if (t->kind == ROUTE_PAGE) {
		route_page(x, t);
		return;
	}
	if (enter_pool(x))
		acquire(x, false);
	else
		exchange_error(x, 503, "This app is being replaced", "Try again in a few seconds.");
}

void exchange_ready(struct exchange *x)
{
	struct client *c = x->c;

	x->body_since = uv_now(&c->conn.w->loop);
	x->blocked_since = 0;
	deadline_set(&c->conn, x->req_done ? DL_RESPONSE : DL_STALL);
	client_resume(c); /* no-op within its own reading, which then goes on */
}

void exchange_send_head(struct exchange *x)
{
	uv_buf_t head = uv_buf_init(x->head.data, (unsigned)x->head.len);

	x->head_sent = true;
	x->sent_at = uv_now(&x->c->conn.w->loop);
	/* RFC 9110 10.1.1: answered here, now that somebody is there to take the body. */
	if (x->expect_continue && !x->req_done) {
		uv_buf_t go = uv_buf_init((char[]){"HTTP/1.1 100 Continue\r\n\r\n"}, 25);
		x->expect_continue = false;
		if (conn_write(&x->c->conn, &go, 1) < 0) {
			client_failed(x->c);
			return;
		}
	}
	int r = conn_write(&x->u->conn, &head, 1);
	if (r < 0)
		exchange_upstream_lost(x, r);
	else
		knock_sent(x->u);
}

static void leave_upstream(struct exchange *x)
{
	struct upstream *u = x->u;

	if (!u)
		return;
	x->u = NULL;
	u->x = NULL;
	upstream_close(u);
}

void exchange_page(struct exchange *x, const struct page *page)
{
	struct client *c = x->c;
	struct worker *w = c->conn.w;

	leave_upstream(x);
	x->keep_alive = x->keep_alive && x->req_done && !w->draining && !c->conn.eof;
	struct page_reader to = {.format = x->format,
				 .head = x->method == HTTP1_HEAD,
				 .keep_alive = x->keep_alive,
				 .minor = x->minor,
				 .request_id = x->request_id,
				 .date = worker_date(w)};
	buf_clear(&w->out);
	page_write(page, &to, &w->out);
	x->status = (uint16_t)page->status;
	count_out(x, w->out.len);
	uv_buf_t b = uv_buf_init(w->out.data, (unsigned)w->out.len);
	x->res_head = x->res_done = true;
	int r = x->keep_alive ? conn_write(&c->conn, &b, 1) : conn_write_last(&c->conn, &b, 1);
	if (r < 0)
		client_failed(c);
	else
		exchange_done(x);
}

void exchange_error(struct exchange *x, int status, const char *title, const char *text)
{
	struct page page = {.status = status, .title = title, .text = text, .retry_after = status == 503 ? 2 : 0};

	if (!x->refused)
		x->refused = REFUSED_APP;
	exchange_page(x, &page);
}

static bool may_retry(const struct exchange *x, const struct upstream *u)
{
	bool idempotent = x->method != HTTP1_POST && x->method != HTTP1_PATCH;

	return u && u->reused && !x->retried && !x->res_head && x->interim == 0 && u->conn.in.len == 0 && idempotent &&
	       x->req_body == HTTP1_NO_BODY && !x->c->conn.closing;
}

void exchange_withdraw(struct exchange *x)
{
	if (x->waiting)
		pool_cancel(x);
	leave_upstream(x);
	if (x->pool)
		pool_leave(x->pool);
	x->pool = NULL;
	x->tried = 0;
}

void exchange_take_idle(struct exchange *x)
{
	leave_upstream(x);
	pool_take_idle(x->pool, x);
}

/* Nothing of the request was sent, so that any other endpoint may have it, whatever its method. */
bool exchange_elsewhere(struct exchange *x)
{
	struct pool *p = x->pool;

	if (x->target->nendpoints < 2 || x->head_sent || x->c->conn.closing)
		return false;
	pool_failed(x->c->conn.w, p);
	x->tried |= (uint16_t)(1U << x->endpoint);
	if (balance_pick(x) < 0)
		return false;
	if (x->waiting)
		pool_cancel(x);
	leave_upstream(x);
	if (!enter_pool(x))
		return false;
	pool_leave(p);
	acquire(x, false);
	return true;
}

static void no_upstream_page(struct exchange *x, int error, bool connected)
{
	char text[300];

	if (x->pool->kind == ROUTE_APP && error == -ECONNREFUSED) {
		snprintf(text, sizeof text,
			 "It runs, but nothing listens on port %u of 127.0.0.1 inside it. If the app has just started, "
			 "try again in a moment; otherwise it listens on another port or has stopped serving.",
			 x->pool->port);
		exchange_error(x, 502, "The app does not accept connections", text);
	} else if (connected) {
		exchange_error(x, 502, "The app closed the connection without an answer",
			       "It may have crashed on this request. Its log says more.");
	} else if (error == -EMFILE || error == -ENFILE || error == -EAGAIN) { /* here; in the queue of a unix socket */
		exchange_error(x, 503, "There are too many connections", "Try again in a few seconds.");
	} else if (error == -ETIMEDOUT) {
		exchange_error(x, 504, "The app did not accept the connection in time", NULL);
	} else {
		exchange_error(x, 502, "The app cannot be reached", "It may have stopped. Its log says more.");
	}
}

void exchange_upstream_lost(struct exchange *x, int error)
{
	struct client *c = x->c;
	bool connected = x->u && x->u->connected;
	bool retry = may_retry(x, x->u);

	leave_upstream(x);
	if (retry) {
		x->retried = true;
		x->head_sent = false;
		acquire(x, true);
	} else if (!connected && exchange_elsewhere(x)) {
		return;
	} else if (!x->res_head) {
		no_upstream_page(x, error, connected);
	} else {
		/* Cut off in the middle of a response: the client must see that it is not whole. */
		if (x->out_body == HTTP1_UNTIL_CLOSE) {
			client_cut(c, true);
			return;
		}
		exchange_abort(x);
		client_next(c, false, false);
	}
}

void exchange_abort(struct exchange *x)
{
	leave_upstream(x);
	exchange_free(x);
}

void exchange_done(struct exchange *x)
{
	struct client *c = x->c;
	struct upstream *u = x->u;
	bool keep = x->keep_alive && x->req_done;
	bool linger = !x->req_done || c->conn.in.len > 0;

	if (u) {
		x->u = NULL;
		u->x = NULL;
		if (x->reusable && x->req_done && !x->upload_broken && !u->conn.eof && u->conn.pending == 0)
			pool_put_back(u);
		else
			upstream_close(u);
	}
	exchange_free(x);
	client_next(c, keep, linger);
}
