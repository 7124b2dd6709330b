/* spaced/http with raw bytes: framing, keep-alive, pipelining, back-pressure, limits. Lifetimes: test_http_lifetime.c. */
#include "tests/unit/http_rig.h"

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
	/* Whether the body comes now or the next request, nobody can tell: neither may be taken for the other. */
	assert_true(has(&in, "Connection: close"));
	say(fd, "GET /two HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_END(fd, &in);
	assert_int_equal(count(&in, "HTTP/1.1"), 1);
	assert_int_equal(rig->requests, 2);

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

static void count_end_of_drain(void *ctx)
{
	++*(int *)ctx;
}

/* What is there is answered and told to go; the last to leave is told of. */
static void drain(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int held = dial(), idle = dial();
	int done = 0;

	(void)state;
	say(idle, "GET /before HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(idle, &in, "/before");
	assert_false(has(&in, "Connection: close"));
	say(held, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
	WAIT_FOR(rig->held);
	http_server_drain(rig->s, count_end_of_drain, &done);
	say(idle, "GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
	buf_clear(&in);
	HEAR_END(idle, &in);
	assert_true(has(&in, "Connection: close\r\n") && has(&in, "/again"));
	assert_int_equal(done, 0);
	http_reply(rig->held, 200, "text/plain", "held", 4);
	buf_clear(&in);
	HEAR_END(held, &in);
	assert_true(has(&in, "Connection: close\r\n") && has(&in, "held"));
	WAIT_FOR(done == 1);
	assert_int_equal(rig->requests, 3);
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
	    T(admin_sockets_know_the_caller),
	    T(drain),
	    cmocka_unit_test(dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
