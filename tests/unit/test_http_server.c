/* spaced/http over a real unix socket with raw bytes: framing, keep-alive, pipelining, back-pressure, limits, and what
 * happens when the peer leaves at any point. Lifetimes are what SANITIZE=1 and valgrind watch here. */
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

#define DEADLINE_MS 10000

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

static size_t count(const struct buf *in, const char *text)
{
	size_t n = 0;

	for (const char *p = in->data; p && (p = strstr(p, text)); p++)
		n++;
	return n;
}

#define HEAR_UNTIL(fd, in, text) WAIT_FOR((hear(fd, in), has(in, text)))
#define HEAR_END(fd, in) WAIT_FOR(hear(fd, in))

static void keep_alive_and_pipelining(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "GET /one HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "\r\n\r\n/one");
	assert_true(has(&in, "Content-Length: 4\r\n"));
	assert_true(has(&in, "Date: "));
	assert_false(has(&in, "Connection: close"));
	buf_clear(&in);
	say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET /two?q HTTP/1.1\r\nHost: x\r\n\r\n");
	WAIT_FOR(rig->held);
	for (int i = 0; i < 5; i++)
		turn(1);
	assert_int_equal(rig->requests, 2); /* the third waits for the answer of the second */
	http_reply(rig->held, 200, "text/plain", "held", 4);
	HEAR_UNTIL(fd, &in, "/two");
	assert_true(strstr(in.data, "held") < strstr(in.data, "/two"));
	buf_clear(&in);
	say(fd, "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	HEAR_END(fd, &in);
	assert_true(has(&in, "Connection: close\r\n"));
	assert_int_equal(rig->closes, 4);
}

static void one_byte_at_a_time(void **state)
{
	static const char text[] =
	    "POST /count?a=%20b HTTP/1.1\r\nHost: x\r\nX-Y:  v w \r\nTransfer-Encoding: chunked\r\n\r\n"
	    "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n";
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	for (size_t i = 0; i < sizeof text - 1; i++) {
		say_n(fd, text + i, 1);
		turn(1);
	}
	HEAR_UNTIL(fd, &in, "\r\n\r\n/next");
	assert_true(has(&in, "\r\n\r\n5HTTP/1.1"));
	assert_int_equal(rig->ends, 1);
}

static void body_echo_of_megabytes(void **state)
{
	enum { N = 4 * 1024 * 1024 };
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();
	cleanup_free char *data = malloc(N);

	(void)state;
	for (size_t i = 0; i < N; i++)
		data[i] = (char)(i * 31 >> 3);
	say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n");
	for (size_t sent = 0; sent < N;) {
		ssize_t n = send(fd, data + sent, N - sent, MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		turn(1);
		hear(fd, &in);
	}
	HEAR_UNTIL(fd, &in, "\r\n0\r\n\r\n");
	assert_int_equal(rig->body, N);
	/* Undo the chunks and compare. */
	char *p = strstr(in.data, "\r\n\r\n") + 4;
	size_t at = 0, n;
	while ((n = strtoul(p, &p, 16)) != 0) {
		p += 2;
		assert_true(at + n <= N);
		assert_memory_equal(p, data + at, n);
		at += n;
		p += n + 2;
	}
	assert_int_equal(at, N);
}

static void pause_stops_the_peer(void **state)
{
	enum { N = 8 * 1024 * 1024 };
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();
	cleanup_free char *data = calloc(1, N);
	size_t sent = 0;

	(void)state;
	say(fd, "POST /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n");
	WAIT_FOR(rig->held);
	for (int idle = 0; idle < 20; idle++) {
		ssize_t n = send(fd, data, N - sent, MSG_NOSIGNAL);
		if (n > 0) {
			sent += (size_t)n;
			idle = 0;
		}
		turn(1);
	}
	assert_true(sent < N / 2); /* socket buffers only */
	assert_int_equal(rig->body, 0);
	http_resume(rig->held);
	while (sent < N) {
		ssize_t n = send(fd, data, N - sent, MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		turn(1);
	}
	HEAR_UNTIL(fd, &in, "8388608");
}

static void answers_have_back_pressure(void **state)
{
	static const char *const paths[] = {"/chunked", "/sized"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		cleanup_buf struct buf in = BUF_INIT;
		cleanup_close int fd = dial();
		cleanup_free char *req = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", paths[i]);
		rig->drains = 0;
		rig->max_pending = 0;
		say(fd, req);
		for (int n = 0; n < 20; n++)
			turn(1);
		assert_true(rig->streamed < rig->stream_size);
		assert_true(rig->max_pending < 256 * 1024 + 50100);
		HEAR_END(fd, &in);
		assert_true(in.len > rig->stream_size);
		assert_true(rig->drains > 2);
		assert_int_equal(rig->streamed, rig->stream_size);
	}
}

static void head_and_empty_answers(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "\r\n\r\n");
	assert_true(has(&in, "Content-Length: 4\r\n"));
	assert_memory_equal(in.data + in.len - 4, "\r\n\r\n", 4);
	buf_clear(&in);
	say(fd, "HEAD /chunked HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "\r\n\r\n");
	assert_memory_equal(in.data + in.len - 4, "\r\n\r\n", 4);
	buf_clear(&in);
	say(fd, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\nHEAD /short HTTP/1.1\r\nHost: x\r\n\r\nGET /z HTTP/1.1\r\nHost: "
		"x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "\r\n\r\n/z");
	assert_true(has(&in, "204 No Content"));
	assert_false(has(&in, "Content-Length: 0"));
	assert_true(has(&in, "Content-Length: 100"));
}

static void broken_answers_are_cut(void **state)
{
	static const char *const paths[] = {"/short", "/abort"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		cleanup_buf struct buf in = BUF_INIT;
		cleanup_close int fd = dial();
		cleanup_free char *req = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]);
		say(fd, req);
		HEAR_END(fd, &in);
		assert_false(has(&in, "\r\n0\r\n\r\n"));
	}
	WAIT_FOR(rig->closes == 2);
}

static void errors_are_json(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "GET /error HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-123\r\n\r\n");
	HEAR_UNTIL(fd, &in, "}");
	assert_true(has(&in, "HTTP/1.1 401 Unauthorized\r\n"));
	assert_true(has(&in, "X-Error-Code: GatedRepo\r\n"));
	assert_true(has(&in, "X-Error-Message: not \"yours\"??X-Evil: 1 ?\r\n"));
	assert_true(has(&in, "X-Request-Id: abc-123\r\n"));
	assert_true(has(&in, "WWW-Authenticate: Basic realm=\"x\"\r\n"));
	assert_true(has(&in, "{\"error\":\"not \\\"yours\\\"\\u000d\\u000aX-Evil: 1 \xef\xbf\xbd\"}"));
	assert_false(has(&in, "\r\nX-Evil"));
}

static void collect_and_its_limit(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();
	char big[200];

	(void)state;
	say(fd, "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
	HEAR_UNTIL(fd, &in, "\r\n\r\nhello");
	buf_clear(&in);
	say(fd, "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	HEAR_UNTIL(fd, &in, "Content-Length: 0\r\n");
	buf_clear(&in);
	say(fd, "POST /collect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n");
	memset(big, 'x', sizeof big);
	say_n(fd, big, sizeof big);
	HEAR_UNTIL(fd, &in, "413 Content Too Large");
	WAIT_FOR(rig->closes == 3);
	assert_int_equal(rig->dones, 2);
	say(fd, "\r\n0\r\n\r\n"); /* the peer may end its sentence; then the connection ends */
	HEAR_END(fd, &in);

	cleanup_close int other = dial();
	buf_clear(&in);
	say(other, "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
	HEAR_UNTIL(other, &in, "413 Content Too Large");
	assert_true(has(&in, "Connection: close"));
}

static void early_answer_keeps_a_short_connection(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
	HEAR_UNTIL(fd, &in, "/one");
	assert_int_equal(rig->closes, 1);
	say(fd, "67890GET /two HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "/two");
}

static void expect_continue(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
	HEAR_UNTIL(fd, &in, "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, "abc");
	HEAR_UNTIL(fd, &in, "\r\n\r\n3");
	buf_clear(&in);
	say(fd, "POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
	HEAR_UNTIL(fd, &in, "/one");
	assert_int_equal(count(&in, "HTTP/1.1"), 1); /* answered at once: no 100 */

	cleanup_close int other = dial();
	buf_clear(&in);
	say(other, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: magic\r\n\r\n");
	HEAR_UNTIL(other, &in, "417 Expectation Failed");
}

static void refused_heads(void **state)
{
	static const struct {
		const char *text, *status;
	} cases[] = {
	    {"GET / HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n", "400"},
	    {"\x01\x02\x03\x04\r\n\r\n", "400"},
	    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
	    {"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", "405"},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "400"},
	    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", "400"},
	    {"POST /hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
	    {"GET foo HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_buf struct buf in = BUF_INIT;
		cleanup_free char *want = xasprintf("HTTP/1.1 %s ", cases[i].status);
		cleanup_close int fd = dial();
		say(fd, cases[i].text);
		HEAR_END(fd, &in);
		if (!has(&in, want))
			fail_msg("case %zu: %s", i, in.data);
	}
}

static void too_large_heads(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_free char *long_value = malloc(80001);
	cleanup_close int a = dial();
	cleanup_close int b = dial();
	cleanup_close int c = dial();

	(void)state;
	memset(long_value, 'v', 80000);
	long_value[80000] = '\0';
	say(a, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
	send(a, long_value, 80000, MSG_NOSIGNAL);
	HEAR_UNTIL(a, &in, "431 Request Header Fields Too Large");
	buf_clear(&in);
	say(b, "GET / HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; i < 130; i++)
		say(b, "X: y\r\n");
	HEAR_UNTIL(b, &in, "431 Request Header Fields Too Large");
	buf_clear(&in);
	say(c, "GET /");
	send(c, long_value, 80000, MSG_NOSIGNAL);
	HEAR_UNTIL(c, &in, "414 URI Too Long");
	assert_int_equal(rig->requests, 0);
}

static void old_http(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	rig->stream_size = 10;
	say(fd, "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	HEAR_END(fd, &in);
	assert_false(has(&in, "chunked"));
	assert_true(has(&in, "\r\n\r\naaaaaaaaaa"));
}

static void upgrade_is_not_followed(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "POST /count HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: "
		"3\r\n\r\nabc"
		"GET http://h/abs?x HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(fd, &in, "\r\n\r\n/abs");
	assert_true(has(&in, "\r\n\r\n3"));
}

static void peer_leaves_anywhere(void **state)
{
	static const char post[] =
	    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

	(void)state;
	for (size_t i = 0; i < sizeof post; i++) {
		int fd = dial();
		say_n(fd, post, i);
		turn(1);
		close(fd);
		turn(1);
	}
	WAIT_FOR(rig->closes == rig->requests);
	/* ... while the handler thinks: it is told, and its late answer goes nowhere. */
	int fd = dial();
	say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
	WAIT_FOR(rig->held);
	close(fd);
	http_reply(rig->held, 200, NULL, "x", 1);
	WAIT_FOR(!rig->held);
	/* ... while a body waits. */
	fd = dial();
	say(fd, "POST /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
	WAIT_FOR(rig->held);
	close(fd);
	turn(1);
	http_resume(rig->held);
	WAIT_FOR(!rig->held);
	/* ... in the midst of an answer. */
	fd = dial();
	say(fd, "GET /sized HTTP/1.1\r\nHost: x\r\n\r\n");
	WAIT_FOR(rig->streamed > 0);
	close(fd);
	WAIT_FOR(rig->closes == rig->requests);
}

static void half_close_still_gets_a_ready_answer(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int fd = dial();

	(void)state;
	say(fd, "GET /sized HTTP/1.1\r\nHost: x\r\n\r\n");
	rig->stream_size = 400000;
	WAIT_FOR(rig->streamed == rig->stream_size || (hear(fd, &in), false));
	shutdown(fd, SHUT_WR);
	HEAR_END(fd, &in);
	assert_true(in.len > rig->stream_size);
}

static void time_outs(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int idle = dial();
	cleanup_close int head = dial();
	cleanup_close int body = dial();
	cleanup_close int deaf = dial();

	(void)state;
	http_server_limits(rig->s, &(struct http_limits){.idle_ms = 30, .head_ms = 30, .body_ms = 30, .write_ms = 30});
	say(head, "GET /slow HTTP/1.1\r\nHo");
	say(body, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
	say(deaf, "GET /sized HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_END(idle, &in);
	assert_int_equal(in.len, 0);
	HEAR_END(head, &in);
	assert_true(has(&in, "408 Request Timeout"));
	buf_clear(&in);
	HEAR_END(body, &in);
	assert_true(has(&in, "408 Request Timeout"));
	WAIT_FOR(rig->closes == rig->requests);
	assert_int_equal(rig->requests, 2);
}

static void connections_wait_their_turn(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	int a = dial(), b = dial();
	cleanup_close int c = dial();

	(void)state;
	http_server_limits(rig->s, &(struct http_limits){.connections = 2});
	say(a, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
	say(b, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
	say(c, "GET /c HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(b, &in, "/b");
	for (int i = 0; i < 5; i++)
		turn(1);
	assert_int_equal(rig->requests, 2);
	close(a);
	HEAR_UNTIL(c, &in, "/c");
	close(b);
}

/* Many clients at once that do everything at random and leave at random; the server's sums must be right at the end.
 * What is really tested is what ASan and valgrind say. */
static void random_peers(void **state)
{
	static const char *const texts[] = {
	    "GET /one HTTP/1.1\r\nHost: x\r\n\r\n",
	    "GET /sized HTTP/1.1\r\nHost: x\r\n\r\n",
	    "GET /chunked HTTP/1.1\r\nHost: x\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nabcdefghijkl",
	    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	    "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\nabc",
	    "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
	    "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n",
	    "GET /abort HTTP/1.1\r\nHost: x\r\n\r\n",
	    "GET /short HTTP/1.1\r\nHost: x\r\n\r\n",
	    "POST /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabcdef",
	    "GET /error HTTP/1.1\r\nHost: x\r\n\r\n",
	    "rubbish\r\n\r\n",
	};
	enum { PEERS = 12, ROUNDS = 6000 };
	int fds[PEERS];
	cleanup_buf struct buf in = BUF_INIT;

	(void)state;
	srandom(7);
	rig->stream_size = 600000;
	memset(fds, -1, sizeof fds);
	for (int i = 0; i < ROUNDS; i++) {
		int *fd = &fds[random() % PEERS];
		long act = random() % 16;
		if (*fd < 0) {
			*fd = dial();
		} else if (act < 7) {
			const char *t = texts[(size_t)random() % (sizeof texts / sizeof *texts)];
			size_t n = strlen(t);
			(void)!send(*fd, t, random() % 4 ? n : (size_t)random() % n, MSG_NOSIGNAL);
		} else if (act < 11) {
			buf_clear(&in);
			hear(*fd, &in);
		} else if (act < 12) {
			shutdown(*fd, SHUT_WR);
		} else if (act < 14) {
			close(*fd);
			*fd = -1;
		}
		if (rig->held && random() % 3 == 0) {
			struct http_req *r = rig->held;
			if (random() % 2)
				http_resume(r);
			else
				http_reply(r, 200, NULL, "y", 1);
		}
		if (random() % 3 == 0)
			uv_run(&rig->loop, UV_RUN_NOWAIT);
	}
	for (int i = 0; i < PEERS / 2; i++) /* the others are still there when the server ends */
		if (fds[i] >= 0) {
			close(fds[i]);
			fds[i] = -1;
		}
	http_server_free(rig->s);
	rig->s = NULL;
	uv_run(&rig->loop, UV_RUN_DEFAULT);
	assert_int_equal(rig->requests, rig->closes);
	assert_true(rig->requests > 100);
	for (int i = 0; i < PEERS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static uid_t seen_uid;
static void tell_uid(struct http_req *r, void *ctx)
{
	(void)ctx;
	seen_uid = http_peer_uid(r);
	rig->requests++;
	http_on_close(r, on_close, NULL);
	http_reply(r, 200, NULL, "", 0);
}

static void admin_sockets_know_the_caller(void **state)
{
	struct http_handler h = {tell_uid};
	struct sockaddr_un addr = rig->addr;
	cleanup_buf struct buf in = BUF_INIT;

	(void)state;
	for (int admin = 0; admin < 2; admin++) {
		int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		snprintf(addr.sun_path, sizeof addr.sun_path, "%s/admin", rig->dir);
		assert_int_equal(bind(l, (struct sockaddr *)&addr, sizeof addr), 0);
		struct http_server *s = http_server_new(&rig->loop, &h, NULL);
		assert_int_equal(http_server_listen(s, l, admin), 0);
		cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
		say(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
		buf_clear(&in);
		HEAR_UNTIL(fd, &in, "200 OK");
		assert_int_equal(seen_uid, admin ? getuid() : (uid_t)-1);
		http_server_free(s);
		turn(1);
		unlink(addr.sun_path);
	}
}

static void dates(void **state)
{
	char text[32];

	(void)state;
	http_date(784111777, text);
	assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
	http_date(0, text);
	assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(keep_alive_and_pipelining),
	    T(one_byte_at_a_time),
	    T(body_echo_of_megabytes),
	    T(pause_stops_the_peer),
	    T(answers_have_back_pressure),
	    T(head_and_empty_answers),
	    T(broken_answers_are_cut),
	    T(errors_are_json),
	    T(collect_and_its_limit),
	    T(early_answer_keeps_a_short_connection),
	    T(expect_continue),
	    T(refused_heads),
	    T(too_large_heads),
	    T(old_http),
	    T(upgrade_is_not_followed),
	    T(peer_leaves_anywhere),
	    T(half_close_still_gets_a_ready_answer),
	    T(time_outs),
	    T(connections_wait_their_turn),
	    T(random_peers),
	    T(admin_sockets_know_the_caller),
	    cmocka_unit_test(dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
