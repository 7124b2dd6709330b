/* Client connections: accepting, finding heads, one request at a time, keeping alive, closing without losing the last
 * response. Requests themselves: exchange.c. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <utlist.h>

#include "proxy/worker.h"

#define HEADS 32	  /* of pipelined requests, in a row: then others have their turn */
#define IDLE_LAST_MS 1000 /* at the end of a worker: time to say another request on a connection that was kept alive */

static void leave(struct client *c, bool reset)
{
	struct worker *w = c->conn.w;

	peer_leave(c->conn.w, &c->peer);
	DL_DELETE(w->clients, c);
	w->nclients--;
	conn_close(&c->conn, reset);
}

/* Closes once all is written. With unread input a close would be a reset that can destroy the response on its way, so
 * then only the sending side ends, and input is read and dropped for a moment (RFC 9112 9.6). */
static void goodbye_now(struct client *c)
{
	if (c->lingering && !c->conn.eof) {
		conn_shutdown(&c->conn);
		buf_release(&c->conn.in);
		deadline_set(&c->conn, DL_LINGER);
		conn_read_start(&c->conn);
		return;
	}
	leave(c, false);
}

static void goodbye(struct client *c, bool linger)
{
	if (c->goodbye)
		return;
	c->goodbye = true;
	c->lingering = linger;
	conn_read_stop(&c->conn);
	if (c->conn.pending)
		deadline_set(&c->conn, DL_STALL);
	else
		goodbye_now(c);
}

static void drop(struct client *c, bool reset)
{
	if (c->conn.closing)
		return;
	if (c->x)
		exchange_abort(c->x);
	leave(c, reset);
}

/* What has come is dropped, unseen: tcp(7), MSG_TRUNC. Closing with it unread would be a reset. */
static void drop_input(struct client *c)
{
	recv(c->conn.fd, NULL, BLOCK_SIZE, MSG_TRUNC | MSG_DONTWAIT);
}

/* An answer outside any exchange: the request could not be read. One too many, of this process or of its address, stays for a
 * moment only while there is room: else it would take the place of another. */
static void refuse(struct client *c, int status, enum refusal why, const char *text)
{
	struct worker *w = c->conn.w;
	bool full = why == REFUSED_CONNECTIONS || why == REFUSED_CLIENT_CONNECTIONS;
	bool stays = !full || w->nclients <= w->limits.connections / 2;
	struct page page = {.status = status, .title = page_reason(status), .text = text, .retry_after = full ? 2 : 0};
	struct page_reader to = {.minor = 1, .request_id = "", .date = worker_date(w)};

	w->nobody->count.n[COUNT_REFUSED + why]++;
	buf_clear(&w->out);
	page_write(&page, &to, &w->out);
	access_log_refusal(c, status, why, text, w->out.len);
	if (!stays)
		drop_input(c);
	uv_buf_t b = uv_buf_init(w->out.data, (unsigned)w->out.len);
	if (conn_write_last(&c->conn, &b, 1) < 0)
		drop(c, false);
	else
		goodbye(c, stays);
}

/* One head, when it is whole. Returns the bytes used; 0: more is needed. */
static size_t take_head(struct client *c, char *p, size_t n, size_t seen)
{
	struct worker *w = c->conn.w;
	ssize_t end = http1_head_end(p, n, seen);
	bool hopeless = n > w->limits.head_bytes || !((p[0] >= 'A' && p[0] <= 'Z') || p[0] == '\r');

	if (end == -EBADMSG) {
		refuse(c, 400, REFUSED_MALFORMED, "a bare line feed");
		return n;
	}
	if (end == 0 && !hopeless)
		return 0;
	size_t used = end ? (size_t)end : n;
	int status = http1_parse_request(p, used, &w->req_limits, &w->req);
	if (status) {
		refuse(c, status, REFUSED_MALFORMED, w->req.why);
		return n;
	}
	exchange_start(c, used);
	return used;
}

static size_t consume(struct client *c, char *p, size_t n)
{
	size_t at = 0;
	int heads = 0;

	c->turn_over = false;
	while (at < n && !c->conn.closing) {
		size_t used;
		if (c->goodbye)
			return n;
		if (!c->x && c->conn.pending)
			break; /* the response before is still on its way: pipelining has depth 1 */
		if (!c->x && heads++ == HEADS) {
			c->turn_over = true;
			break;
		}
		if (!c->x)
			used = take_head(c, p + at, n - at, at ? 0 : c->conn.seen);
		else if (c->x->tunnel || !c->x->req_done)
			used = relay_request(c->x, p + at, n - at);
		else
			break;
		at += used;
		if (used)
			c->conn.seen = 0;
		else
			break;
	}
	return at;
}

static bool over(const struct client *c)
{
	return c->conn.closing || c->goodbye;
}

/* After input was consumed as far as it goes: read on or not, and until when. */
static void settle(struct client *c)
{
	struct exchange *x = c->x;

	/* It may end with that, and the next request have begun. */
	if (!over(c) && x && x->u && x->u->connected && !x->head_sent && !x->waiting)
		exchange_send_head(x);
	if (over(c))
		return;
	x = c->x;
	size_t waiting = c->conn.in.len;
	if (waiting == 0)
		buf_release(&c->conn.in);
	if (x) {
		/* A request that is complete is read on, to see the client go; the first byte too many stops it. */
		if (!x->req_done)
			conn_acknowledge(&c->conn);
		if (waiting)
			conn_read_stop(&c->conn);
		else
			conn_read_start(&c->conn);
		return;
	}
	if (waiting && (c->conn.pending || c->turn_over)) {
		conn_read_stop(&c->conn);
		if (c->turn_over)
			turn_put_off(&c->conn);
		return;
	}
	c->conn.seen = waiting;
	if (c->conn.eof) {
		goodbye(c, false);
		return;
	}
	if (waiting)
		conn_acknowledge(&c->conn);
	if (waiting && c->conn.timed.kind != DL_HEAD)
		deadline_set(&c->conn, DL_HEAD);
	conn_read_start(&c->conn);
}

static void feed(struct client *c, char *p, size_t n)
{
	struct buf *in = &c->conn.in;

	c->feeding = true;
	if (in->len == 0) {
		size_t used = consume(c, p, n);
		if (used < n && !c->conn.closing)
			buf_add(in, p + used, n - used);
	} else {
		buf_add(in, p, n);
		size_t used = consume(c, in->data, in->len);
		if (in->len) /* goodbye may have emptied it */
			buf_consume(in, used);
	}
	c->feeding = false;
	settle(c);
}

void client_resume(struct client *c)
{
	if (!c->feeding && !c->conn.closing && !c->goodbye)
		feed(c, NULL, 0);
}

static void client_eof(struct client *c, bool error)
{
	struct exchange *x = c->x;

	if (c->goodbye) {
		c->lingering = false;
		if (error || c->conn.pending == 0)
			drop(c, false);
		return;
	}
	if (!x) {
		goodbye(c, false);
		return;
	}
	if (x->tunnel && !error) {
		relay_tunnel_eof(x, &c->conn);
		return;
	}
	/* A client may close its sending side and wait for the response (RFC 9112 9.6); one that reads events for ever
	 * or awaits a WebSocket has no reason to, so there it has left. So it has when it is held: places are few. */
	x->keep_alive = false;
	if (error || !x->req_done || x->event_stream || x->websocket || x->hold)
		drop(c, false);
}

void client_input(struct client *c, char *p, ssize_t n)
{
	if (n <= 0)
		client_eof(c, n < 0);
	else if (!c->goodbye)
		feed(c, p, (size_t)n);
}

void client_drained(struct client *c)
{
	struct exchange *x = c->x;

	if (c->goodbye) {
		goodbye_now(c);
		return;
	}
	if (x && x->u && x->u->connected) {
		if (x->res_head && !x->event_stream && !x->tunnel)
			deadline_set(&c->conn, DL_STALL);
		conn_read_start(&x->u->conn);
	}
	client_resume(c);
}

void client_failed(struct client *c)
{
	drop(c, false);
}

void client_cut(struct client *c, bool reset)
{
	drop(c, reset);
}

/* A request that has just come in, and will be read in this turn of the loop. */
static bool speaks(struct client *c)
{
	char byte;

	return recv(c->conn.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* As long as if the app itself were started: from when it was held no more. */
static bool may_wait_on(const struct exchange *x)
{
	const struct worker *w = x->c->conn.w;

	return uv_now(&w->loop) < x->began + x->held_ms + x->stood_ms + w->limits.hold_ms;
}

static bool waits_for_a_role(const struct exchange *x)
{
	const struct worker *w = x->c->conn.w;

	return (x->ask && !w->control) || (x->waiting && !w->spawner);
}

/* To another endpoint; or to the same one, when it is an app: a connection is made in no time, but for one whose listener has no
 * place left, which is the same as an app that is slow to answer. Not for who has said that it says no more: it may have
 * left, and places are few. */
static bool connects_on(struct exchange *x)
{
	if (exchange_elsewhere(x))
		return true;
	if (x->pool->kind != ROUTE_APP || !may_wait_on(x) || x->c->conn.eof)
		return false;
	deadline_set(&x->c->conn, DL_CONNECT);
	return true;
}

void client_timeout(struct client *c, enum deadline kind)
{
	struct exchange *x = c->x;

	if (x && waits_for_a_role(x) && may_wait_on(x)) {
		deadline_set(&c->conn, kind);
	} else if (kind == DL_IDLE && speaks(c)) {
		deadline_set(&c->conn, DL_HEAD);
	} else if (kind == DL_HEAD && c->conn.in.len > 2) {
		refuse(c, 408, REFUSED_SLOW, "The head of the request did not arrive in time.");
	} else if (!x || x->res_head) {
		drop(c, x && x->out_body == HTTP1_UNTIL_CLOSE);
	} else if (x->ask) {
		x->refused = REFUSED_ACCESS;
		exchange_error(x, 503, "Whether you may enter cannot be checked now", "Try again in a few seconds.");
	} else if (x->waiting && !c->conn.w->spawner) {
		exchange_error(x, 503, "This app cannot be reached for a moment",
			       "A part of the server is being restarted. Try again in a few seconds.");
	} else if (kind == DL_CONNECT && x->pool && connects_on(x)) {
		return;
	} else if (kind == DL_CONNECT) {
		exchange_error(x, 504, "The app did not accept the connection in time",
			       "It may be overloaded or stuck. Try again in a moment.");
	} else if (kind == DL_STALL && !(x->u && x->u->conn.pending)) {
		x->refused = REFUSED_SLOW;
		exchange_error(x, 408, "The body of the request did not arrive in time", NULL);
	} else {
		exchange_error(x, 504, "The app did not answer in time", "It may be overloaded or stuck.");
	}
}

void client_next(struct client *c, bool keep, bool linger)
{
	c->x = NULL;
	if (!keep || c->conn.eof) {
		goodbye(c, linger);
		return;
	}
	deadline_set(&c->conn, DL_IDLE);
	client_resume(c);
}

/* All of a kind, in their order, to the end of the idle ones. */
static void hurry(struct worker *w, enum deadline kind)
{
	struct timed *list = &w->deadlines[kind], *last = list->prev, *next;

	for (struct timed *t = list->next; t != list; t = next) {
		struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, timed));
		next = t == last ? list : t->next;
		if (c->in.len == 0)
			deadline_set(c, DL_IDLE);
	}
}

void client_hurry_idle(struct worker *w)
{
	if (w->deadline_ms[DL_IDLE] > IDLE_LAST_MS)
		w->deadline_ms[DL_IDLE] = IDLE_LAST_MS;
	hurry(w, DL_IDLE);
	hurry(w, DL_HEAD);
}

void client_put_off(struct worker *w, uint64_t ms)
{
	for (struct client *c = w->clients; c; c = c->next) {
		c->conn.timed.at += ms;
		if (c->x && c->x->hold)
			c->x->hold_until += ms;
		else if (c->x)
			c->x->stood_ms += ms;
	}
}

/* Who is cut meanwhile stays in memory until the end of this turn of the loop. */
void client_each(struct worker *w, void (*f)(struct client *c, const void *ctx), const void *ctx)
{
	for (struct client *c = w->clients, *next; c; c = next) {
		next = c->next;
		if (!c->conn.closing)
			f(c, ctx);
	}
}

void client_new(struct listener *l, int fd, const struct sockaddr *sa)
{
	struct worker *w = l->w;
	struct client *c = xcalloc(1, sizeof *c);

	c->conn.is_client = true;
	conn_open(&c->conn, w, fd);
	c->port = l->port;
	DL_APPEND(w->clients, c);
	w->nclients++;
	w->nobody->count.n[COUNT_CONNECTIONS]++;
	peer_name(c, sa);
	if (w->nclients > w->limits.connections) {
		refuse(c, 503, REFUSED_CONNECTIONS, "Too many connections.");
		return;
	}
	if (!peer_enter(c)) {
		refuse(c, 429, REFUSED_CLIENT_CONNECTIONS, "Too many connections from this address.");
		return;
	}
	deadline_set(&c->conn, DL_HEAD);
	conn_read_start(&c->conn);
}
