/* The server: listeners, the list of connections, time-outs, the end. */
#include <signal.h>
#include <sys/socket.h>

#include "base/log.h"
#include "spaced/http/internal.h"

#define SWEEP_MS 500
#define BACKLOG 4096 /* a unix socket with a full queue refuses at once (connect(2), EAGAIN) */

static void kick_cb(uv_idle_t *idle)
{
	struct http_server *s = idle->data;
	struct http_conn *c = s->kicks;

	s->kicks = NULL;
	/* Connections are freed only in close callbacks: none of this list goes away while we walk it. */
	while (c) {
		struct http_conn *next = c->kick_next;
		c->kicked = false;
		conn_advance(c);
		c = next;
	}
	if (!s->kicks)
		uv_idle_stop(idle);
}

void server_kick(struct http_server *s)
{
	uv_idle_start(&s->kick, kick_cb);
}

static void sweep_cb(uv_timer_t *timer)
{
	struct http_server *s = timer->data;
	uint64_t now = uv_now(s->loop);

	for (struct http_conn *c = s->conns; c; c = c->next)
		conn_sweep(c, now);
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_handler *h, void *ctx)
{
	struct http_server *s = xcalloc(1, sizeof *s);

	/* libuv writes without MSG_NOSIGNAL: a peer that has left must be an error, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	s->loop = loop;
	s->handler = *h;
	s->ctx = ctx;
	s->limits = (struct http_limits){
	    .head_bytes = 64 * 1024,
	    .fields = 128,
	    .connections = 4096,
	    .idle_ms = 120 * 1000,
	    .head_ms = 20 * 1000,
	    .body_ms = 120 * 1000,
	    .write_ms = 120 * 1000,
	};
	s->read_buf = xmalloc(HTTP_READ_SIZE);
	parse_settings(&s->settings);
	s->kick.data = s->sweep.data = s;
	uv_idle_init(loop, &s->kick);
	uv_timer_init(loop, &s->sweep);
	uv_timer_start(&s->sweep, sweep_cb, SWEEP_MS, SWEEP_MS);
	uv_unref((uv_handle_t *)&s->sweep);
	s->handles = 2;
	return s;
}

void http_server_limits(struct http_server *s, const struct http_limits *l)
{
	struct http_limits *d = &s->limits;

	*d = (struct http_limits){
	    .head_bytes = l->head_bytes ? l->head_bytes : d->head_bytes,
	    .fields = l->fields ? l->fields : d->fields,
	    .connections = l->connections ? l->connections : d->connections,
	    .per_client = l->per_client,
	    .idle_ms = l->idle_ms ? l->idle_ms : d->idle_ms,
	    .head_ms = l->head_ms ? l->head_ms : d->head_ms,
	    .body_ms = l->body_ms ? l->body_ms : d->body_ms,
	    .write_ms = l->write_ms ? l->write_ms : d->write_ms,
	};
}

void server_handle_closed(struct http_server *s)
{
	if (--s->handles)
		return;
	free(s->read_buf);
	free(s);
}

const char *server_date(struct http_server *s)
{
	time_t now = time(NULL);

	if ((uint64_t)now != s->date_second || !s->date[0]) {
		s->date_second = (uint64_t)now;
		http_date(now, s->date);
	}
	return s->date;
}

static void accept_one(struct http_listener *l)
{
	struct http_server *s = l->s;
	struct http_conn *c = xcalloc(1, sizeof *c);

	uv_pipe_init(s->loop, &c->pipe, 0);
	c->pipe.data = c;
	c->s = s;
	c->admin = l->admin;
	c->uid = (uid_t)-1;
	c->next = s->conns;
	if (s->conns)
		s->conns->prev = c;
	s->conns = c;
	s->nconns++;
	s->handles++;
	if (uv_accept((uv_stream_t *)&l->pipe, (uv_stream_t *)&c->pipe) < 0) {
		http_conn_close(c);
		return;
	}
	if (l->admin) {
		struct ucred cred;
		socklen_t n = sizeof cred;
		int fd;
		if (uv_fileno((uv_handle_t *)&c->pipe, &fd) < 0 ||
		    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || n != sizeof cred) {
			http_conn_close(c);
			return;
		}
		c->uid = cred.uid;
	}
	conn_start(c);
}

static void connection_cb(uv_stream_t *stream, int status)
{
	struct http_listener *l = stream->data;

	if (status < 0) {
		log_warn("accept: %s", uv_strerror(status));
		return;
	}
	/* Not taking it makes libuv stop listening until uv_accept() (uv_listen(3)). */
	if (l->s->nconns >= l->s->limits.connections)
		l->waiting = true;
	else
		accept_one(l);
}

static void say_drained(struct http_server *s)
{
	void (*done)(void *ctx) = s->drained;

	s->drained = NULL;
	if (done)
		done(s->drained_ctx);
}

void server_conn_closed(struct http_conn *c)
{
	struct http_server *s = c->s;

	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	for (struct http_conn **at = &s->kicks; c->kicked && *at; at = &(*at)->kick_next) {
		if (*at == c) {
			*at = c->kick_next;
			break;
		}
	}
	free(c);
	s->nconns--;
	for (struct http_listener *l = s->listeners; l && !s->closing; l = l->next) {
		if (l->waiting && s->nconns < s->limits.connections) {
			l->waiting = false;
			accept_one(l);
		}
	}
	if (s->nconns == 0)
		say_drained(s);
	server_handle_closed(s);
}

static void listener_closed(uv_handle_t *h)
{
	struct http_listener *l = h->data;
	struct http_server *s = l->s;

	free(l);
	server_handle_closed(s);
}

int http_server_listen(struct http_server *s, int fd, bool admin)
{
	struct http_listener *l = xcalloc(1, sizeof *l);
	int r;

	uv_pipe_init(s->loop, &l->pipe, 0);
	l->pipe.data = l;
	l->s = s;
	l->admin = admin;
	s->handles++;
	r = uv_pipe_open(&l->pipe, fd);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&l->pipe, BACKLOG, connection_cb);
	if (r < 0) {
		uv_close((uv_handle_t *)&l->pipe, listener_closed);
		return r;
	}
	l->next = s->listeners;
	s->listeners = l;
	return 0;
}

static void close_listeners(struct http_server *s)
{
	for (struct http_listener *l = s->listeners, *next; l; l = next) {
		next = l->next;
		uv_close((uv_handle_t *)&l->pipe, listener_closed);
	}
	s->listeners = NULL;
}

void http_server_drain(struct http_server *s, void (*done)(void *ctx), void *ctx)
{
	s->draining = true;
	s->drained = done;
	s->drained_ctx = ctx;
	for (struct http_listener *l = s->listeners; l; l = l->next)
		if (l->waiting)
			accept_one(l); /* the kernel has it no more: it would be lost with the listener */
	close_listeners(s);
	if (s->nconns == 0)
		say_drained(s);
}

static void own_handle_closed(uv_handle_t *h)
{
	server_handle_closed(h->data);
}

void http_server_free(struct http_server *s)
{
	if (!s || s->closing)
		return;
	s->closing = true;
	s->drained = NULL;
	close_listeners(s);
	for (struct http_conn *c = s->conns; c; c = c->next)
		http_conn_close(c);
	uv_close((uv_handle_t *)&s->kick, own_handle_closed);
	uv_close((uv_handle_t *)&s->sweep, own_handle_closed);
}
