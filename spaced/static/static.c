/* The static role's main: takes requests, has them looked up on worker threads, sends files in pieces. A piece is read
 * only when the one before is sent, so a slow client costs one piece of memory. */
#include "spaced/static/static.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "spaced/http/server.h"
#include "spaced/static/lookup.h"

#define PIECE (64U * 1024)
#define CONNECTIONS_MAX 1024U

struct role {
	uv_loop_t loop;
	uv_poll_t parent;
	uv_signal_t terminate;
	int parent_fd, sites_fd;
	struct http_server *server;
};

/* One request on its way. Freed when both the request is over and no worker holds it. */
struct exchange {
	struct role *role;
	struct http_req *r; /* NULL: over */
	bool busy;	    /* a worker has it */
	struct lookup lookup;
	uv_work_t work;
	uv_fs_t read;
	char *piece;
};

static void exchange_free(struct exchange *x)
{
	if (x->r || x->busy)
		return;
	lookup_release(&x->lookup);
	free(x->piece);
	free(x);
}

static void on_close(struct http_req *r, void *ctx)
{
	struct exchange *x = ctx;

	(void)r;
	x->r = NULL;
	exchange_free(x);
}

static void send_more(struct exchange *x);

static void read_done(uv_fs_t *read)
{
	struct exchange *x = read->data;
	struct lookup *l = &x->lookup;
	ssize_t n = read->result;

	uv_fs_req_cleanup(read);
	x->busy = false;
	if (!x->r) {
		exchange_free(x);
		return;
	}
	if (n <= 0 || (uint64_t)n > l->length) {
		log_error("site %s: a file has become shorter or unreadable", l->id);
		http_abort(x->r);
		return;
	}
	http_write(x->r, x->piece, (size_t)n);
	l->offset += (uint64_t)n;
	l->length -= (uint64_t)n;
	send_more(x);
}

static void send_file_piece(struct exchange *x)
{
	struct lookup *l = &x->lookup;

	if (!x->piece)
		x->piece = xmalloc(PIECE);
	uv_buf_t b = uv_buf_init(x->piece, l->length < PIECE ? (unsigned)l->length : PIECE);
	x->read.data = x;
	x->busy = true;
	int r = uv_fs_read(&x->role->loop, &x->read, l->fd, &b, 1, (int64_t)l->offset, read_done);
	if (r < 0) {
		x->busy = false;
		http_abort(x->r);
	}
}

static void send_more(struct exchange *x)
{
	struct lookup *l = &x->lookup;

	while (l->length && !x->busy && http_pending(x->r) < PIECE) {
		if (!l->blob) {
			send_file_piece(x);
			return;
		}
		size_t n = l->length < PIECE ? (size_t)l->length : PIECE;
		http_write(x->r, l->blob->data + l->offset, n);
		l->offset += n;
		l->length -= n;
	}
	if (!l->length && !x->busy)
		http_end(x->r);
}

static void on_drain(struct http_req *r, void *ctx)
{
	(void)r;
	send_more(ctx);
}

static void set_headers(struct exchange *x)
{
	const struct lookup *l = &x->lookup;
	struct http_req *r = x->r;

	for (size_t i = 0; l->site && i < l->site->nheaders; i++)
		http_set_header(r, l->site->headers[i].name, "%s", l->site->headers[i].value);
	if (l->cache_control && !(l->site && l->site->own_cache_control))
		http_set_header(r, "Cache-Control", "%s", l->cache_control);
	if (l->location)
		http_set_header(r, "Location", "%s", l->location);
	if (l->etag[0])
		http_set_header(r, "ETag", "%s", l->etag);
	if (l->last_modified[0])
		http_set_header(r, "Last-Modified", "%s", l->last_modified);
	if (l->ranges)
		http_set_header(r, "Accept-Ranges", "bytes");
	if (l->vary)
		http_set_header(r, "Vary", "Accept-Encoding");
	if (l->content_range)
		http_set_header(r, "Content-Range", "%s", l->content_range);
}

static void answer(struct exchange *x)
{
	struct lookup *l = &x->lookup;
	struct http_req *r = x->r;

	if (l->status >= 500) {
		http_reply_error(r, l->status, NULL, "the file cannot be read now");
		return;
	}
	set_headers(x);
	if (!l->blob && l->fd < 0) { /* 301, 302, 304, 412, 416 */
		http_reply(r, l->status, NULL, "", 0);
		return;
	}
	if (l->encoding)
		http_set_header(r, "Content-Encoding", "%s", l->encoding);
	http_begin(r, l->status, l->type, (ssize_t)l->length);
	if (str_eq(l->method, "HEAD"))
		http_end(r);
	else
		send_more(x);
}

static void work_cb(uv_work_t *work)
{
	struct exchange *x = work->data;

	lookup_run(&x->lookup);
}

static void looked_up(uv_work_t *work, int status)
{
	struct exchange *x = work->data;

	x->busy = false;
	if (!x->r)
		exchange_free(x);
	else if (status < 0)
		http_abort(x->r);
	else
		answer(x);
}

static struct str copy(struct str s)
{
	return (struct str){xstrndup(s.n ? s.p : "", s.n), s.n};
}

/* Lists that span several fields are rare and harmless here: the first field counts. */
static struct str copy_header(const struct http_req *r, const char *name)
{
	struct str s = STR("");

	http_header(r, name, &s);
	return copy(s);
}

static void on_request(struct http_req *r, void *ctx)
{
	struct role *role = ctx;
	struct buf path = BUF_INIT;
	struct str id;
	bool slash;

	if (!str_eq(http_method(r), "GET") && !str_eq(http_method(r), "HEAD")) {
		http_set_header(r, "Allow", "GET, HEAD");
		http_reply_error(r, 405, NULL, "a static Space answers GET and HEAD only");
		return;
	}
	if (!http_header(r, "X-Spaced-Site", &id) || !site_id_ok(id)) {
		http_reply_error(r, 400, NULL, "no site is named");
		return;
	}
	int status = static_path(http_path(r), &path, &slash);
	if (status == 400) {
		buf_release(&path);
		http_reply_error(r, 400, NULL, "this path is not allowed");
		return;
	}
	struct exchange *x = xcalloc(1, sizeof *x);
	struct lookup *l = &x->lookup;
	lookup_init(l);
	x->role = role;
	x->r = r;
	l->sites_fd = role->sites_fd;
	l->id = xstrndup(id.p, id.n);
	l->path = path;
	l->slash = slash;
	l->hidden = status != 0;
	l->method = copy(http_method(r));
	l->query = copy(http_query(r));
	l->if_match = copy_header(r, "If-Match");
	l->if_none_match = copy_header(r, "If-None-Match");
	l->if_modified_since = copy_header(r, "If-Modified-Since");
	l->range = copy_header(r, "Range");
	l->if_range = copy_header(r, "If-Range");
	l->accept_encoding = copy_header(r, "Accept-Encoding");
	http_on_close(r, on_close, x);
	http_drain_level(r, PIECE);
	http_on_drain(r, on_drain, x);
	x->work.data = x;
	x->busy = true;
	uv_queue_work(&role->loop, &x->work, work_cb, looked_up);
}

static void end(void *ctx)
{
	struct role *role = ctx;

	if (!role->server)
		return;
	uv_close((uv_handle_t *)&role->parent, NULL);
	uv_close((uv_handle_t *)&role->terminate, NULL);
	http_server_free(role->server);
	role->server = NULL;
}

/* The parent never writes here: readable means that it has gone. */
static void parent_cb(uv_poll_t *poll, int status, int events)
{
	struct role *role = poll->data;
	char byte;

	(void)events;
	ssize_t n = status < 0 ? 0 : recv(role->parent_fd, &byte, 1, MSG_DONTWAIT);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	end(role);
}

/* SIGTERM: another one serves the socket, or nobody asks any more. What is being sent is sent to its end. */
static void on_terminate(uv_signal_t *s, int signum)
{
	struct role *role = s->data;

	(void)signum;
	uv_signal_stop(s);
	if (role->server)
		http_server_drain(role->server, end, role);
}

/* A connection and its open file each need a descriptor. */
static uint32_t connections_possible(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 128;
	rlim_t want = 2 * CONNECTIONS_MAX + 128;
	if (lim.rlim_cur < want) {
		lim.rlim_cur = lim.rlim_max < want ? lim.rlim_max : want;
		if (setrlimit(RLIMIT_NOFILE, &lim) < 0 && getrlimit(RLIMIT_NOFILE, &lim) < 0)
			return 128;
	}
	return lim.rlim_cur >= want ? CONNECTIONS_MAX : lim.rlim_cur > 256 ? (uint32_t)(lim.rlim_cur - 128) / 2 : 64;
}

int static_main(int listener, int parent, int sites_fd)
{
	const struct http_handler handler = {on_request};
	struct role role = {.parent_fd = parent, .sites_fd = sites_fd};
	int r = uv_loop_init(&role.loop);

	if (r < 0) {
		log_error("loop: %s", uv_strerror(r));
		return 1;
	}
	role.server = http_server_new(&role.loop, &handler, &role);
	http_server_limits(role.server, &(struct http_limits){.connections = connections_possible()});
	r = http_server_listen(role.server, listener, false);
	if (r == 0)
		r = uv_poll_init(&role.loop, &role.parent, parent);
	if (r == 0) {
		role.parent.data = &role;
		r = uv_poll_start(&role.parent, UV_READABLE | UV_DISCONNECT, parent_cb);
	}
	if (r == 0)
		r = uv_signal_init(&role.loop, &role.terminate);
	if (r == 0) {
		role.terminate.data = &role;
		r = uv_signal_start(&role.terminate, on_terminate, SIGTERM);
	}
	if (r < 0) {
		log_error("listen: %s", uv_strerror(r));
		return 1;
	}
	uv_run(&role.loop, UV_RUN_DEFAULT);
	site_cache_clear();
	pack_cache_clear();
	return uv_loop_close(&role.loop) == 0 ? 0 : 1;
}
