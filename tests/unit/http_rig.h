/* A server on a real unix socket, handlers of every kind, and a peer that says raw bytes: for the tests of spaced/http. */
#ifndef TESTS_UNIT_HTTP_RIG_H
#define TESTS_UNIT_HTTP_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/http/server.h"

#define DEADLINE_MS 60000

/* One server and what it was asked. */
struct rig {
	uv_loop_t loop;
	struct http_server *s;
	struct sockaddr_un addr;
	char dir[64];
	int requests, closes, ends, dones, drains;
	size_t body;
	struct http_req *held; /* a request of /hold */
	size_t streamed, stream_size, max_pending;
	unsigned seed;
	uv_timer_t later;
};

static struct rig *rig;

static void on_close(struct http_req *r, void *ctx)
{
	(void)ctx;
	rig->closes++;
	if (rig->held == r)
		rig->held = NULL;
	/* A last word is harmless. */
	http_reply(r, 200, "text/plain", "late", 4);
	http_write(r, "late", 4);
	http_end(r);
}

static void echo_data(struct http_req *r, const char *p, size_t n, void *ctx)
{
	(void)ctx;
	rig->body += n;
	if (!http_begun(r))
		http_begin(r, 200, "text/plain", -1);
	http_write(r, p, n);
}

static void echo_end(struct http_req *r, void *ctx)
{
	(void)ctx;
	rig->ends++;
	if (!http_begun(r))
		http_begin(r, 200, "text/plain", -1);
	http_end(r);
}

static void count_data(struct http_req *r, const char *p, size_t n, void *ctx)
{
	(void)r;
	(void)p;
	(void)ctx;
	rig->body += n;
}

static void count_end(struct http_req *r, void *ctx)
{
	char text[32];

	(void)ctx;
	rig->ends++;
	snprintf(text, sizeof text, "%zu", rig->body);
	http_reply(r, 200, "text/plain", text, strlen(text));
}

static void collected(struct http_req *r, struct str body, void *ctx)
{
	(void)ctx;
	rig->dones++;
	http_reply(r, 200, "text/plain", body.p, body.n);
}

static void stream_more(struct http_req *r, void *ctx)
{
	static char piece[50000];

	(void)ctx;
	rig->drains++;
	while (rig->streamed < rig->stream_size && http_pending(r) < 256 * 1024) {
		size_t n = rig->stream_size - rig->streamed;
		n = n < sizeof piece ? n : sizeof piece;
		memset(piece, 'a' + (int)(rig->streamed / 50000 % 26), n);
		http_write(r, piece, n);
		rig->streamed += n;
	}
	if (http_pending(r) > rig->max_pending)
		rig->max_pending = http_pending(r);
	if (rig->streamed == rig->stream_size)
		http_end(r);
}

static void stream(struct http_req *r, bool chunked)
{
	rig->streamed = 0;
	http_on_drain(r, stream_more, NULL);
	http_begin(r, 200, "text/plain", chunked ? -1 : (ssize_t)rig->stream_size);
	stream_more(r, NULL);
	rig->drains--;
}

static void on_request(struct http_req *r, void *ctx)
{
	struct str path = http_path(r);

	(void)ctx;
	rig->requests++;
	rig->body = 0;
	http_on_close(r, on_close, NULL);
	if (str_eq(path, "/echo")) {
		http_on_body(r, (struct http_body_cb){echo_data, echo_end}, NULL);
	} else if (str_eq(path, "/count")) {
		http_on_body(r, (struct http_body_cb){count_data, count_end}, NULL);
	} else if (str_eq(path, "/paused")) {
		http_on_body(r, (struct http_body_cb){count_data, count_end}, NULL);
		http_pause(r);
		rig->held = r;
	} else if (str_eq(path, "/collect")) {
		http_collect(r, 100, collected, NULL);
	} else if (str_eq(path, "/hold")) {
		rig->held = r;
	} else if (str_eq(path, "/chunked")) {
		stream(r, true);
	} else if (str_eq(path, "/sized")) {
		stream(r, false);
	} else if (str_eq(path, "/short")) {
		http_begin(r, 200, NULL, 100);
		http_write(r, "only this", 9);
		http_end(r);
	} else if (str_eq(path, "/abort")) {
		http_begin(r, 200, NULL, -1);
		http_write(r, "x", 1);
		http_abort(r);
	} else if (str_eq(path, "/error")) {
		http_set_header(r, "WWW-Authenticate", "Basic realm=\"%s\"", "x");
		http_reply_error(r, 401, "GatedRepo", "not \"yours\"\r\nX-Evil: 1 \xff");
	} else if (str_eq(path, "/empty")) {
		http_reply(r, 204, NULL, NULL, 0);
	} else {
		http_reply(r, 200, "text/plain", path.p, path.n);
	}
}

static int setup(void **state)
{
	struct http_handler h = {on_request};

	(void)state;
	rig = calloc(1, sizeof *rig);
	memcpy(rig->dir, "/tmp/test-http-XXXXXX", 22);
	assert_non_null(mkdtemp(rig->dir));
	rig->addr.sun_family = AF_UNIX;
	snprintf(rig->addr.sun_path, sizeof rig->addr.sun_path, "%s/s", rig->dir);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&rig->addr, sizeof rig->addr), 0);
	uv_loop_init(&rig->loop);
	rig->s = http_server_new(&rig->loop, &h, rig);
	assert_int_equal(http_server_listen(rig->s, fd, false), 0);
	rig->stream_size = 3 * 1000 * 1000;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	http_server_free(rig->s);
	uv_run(&rig->loop, UV_RUN_DEFAULT);
	assert_int_equal(rig->requests, rig->closes);
	assert_int_equal(uv_loop_close(&rig->loop), 0);
	unlink(rig->addr.sun_path);
	rmdir(rig->dir);
	free(rig);
	rig = NULL;
	return 0;
}

static void tick(uv_timer_t *t)
{
	(void)t;
}

/* Lets the server work for a moment: one turn of its loop, at most `ms`. */
static void turn(unsigned ms)
{
	uv_timer_t t;

	uv_timer_init(&rig->loop, &t);
	uv_timer_start(&t, tick, ms, 0);
	uv_run(&rig->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(&rig->loop, UV_RUN_NOWAIT);
}

#define WAIT_FOR(cond)                                                                                                 \
	do {                                                                                                           \
		uint64_t until_ = io_now_ms() + DEADLINE_MS;                                                           \
		while (!(cond)) {                                                                                      \
			assert_true(io_now_ms() < until_);                                                             \
			turn(5);                                                                                       \
		}                                                                                                      \
	} while (0)

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&rig->addr, sizeof rig->addr), 0);
	return fd;
}

static void say_n(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k < 0) {
			assert_int_equal(errno, EAGAIN);
			turn(5);
			continue;
		}
		p += k;
		n -= (size_t)k;
	}
}

static void say(int fd, const char *text)
{
	say_n(fd, text, strlen(text));
}

/* Reads what is there; true when the peer has closed. */
static bool hear(int fd, struct buf *in)
{
	char step[65536];
	ssize_t n;

	while ((n = recv(fd, step, sizeof step, 0)) > 0)
		buf_add(in, step, (size_t)n);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

static bool has(const struct buf *in, const char *text)
{
	return in->len && memmem(in->data, in->len, text, strlen(text));
}

__attribute__((unused)) static size_t count(const struct buf *in, const char *text)
{
	size_t n = 0;

	for (const char *p = in->data; p && (p = strstr(p, text)); p++)
		n++;
	return n;
}

#define HEAR_UNTIL(fd, in, text) WAIT_FOR((hear(fd, in), has(in, text)))
#define HEAR_END(fd, in) WAIT_FOR(hear(fd, in))

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
