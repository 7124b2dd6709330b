/* spaced/http when the peer leaves, at any point, or keeps us waiting. What is really tested is what ASan and valgrind say:
 * nothing is used after its end, and every request ends exactly once. */
#include "tests/unit/http_rig.h"

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
	say(head, "GET /slow HTTP/1.1\r\nHo");
	say(body, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
	say(deaf, "GET /sized HTTP/1.1\r\nHost: x\r\n\r\n");
	WAIT_FOR(rig->requests == 2); /* before that they would only be idle */
	http_server_limits(rig->s, &(struct http_limits){.idle_ms = 30, .head_ms = 30, .body_ms = 30, .write_ms = 30});
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

static void say_as(int fd, const char *client)
{
	cleanup_buf struct buf b = BUF_INIT;

	buf_addf(&b, "POST /echo HTTP/1.1\r\nHost: x\r\nX-Real-IP: %s\r\nContent-Length: 2\r\n\r\n", client);
	say_n(fd, b.data, b.len);
}

/* Who sends slowly takes a place of his own only; and has it again. */
static void requests_of_one_client(void **state)
{
	static const char *const many[] = {"192.0.2.1", "2001:db8::1", "127.0.0.1", "::1", "not an address"};
	static const char *const same[] = {"192.0.2.1", "2001:db8::ff:2", "127.0.0.1", "::1", "not an address"};

	(void)state;
	http_server_limits(rig->s, &(struct http_limits){.per_client = 2});
	for (size_t i = 0; i < sizeof many / sizeof *many; i++) {
		cleanup_buf struct buf in = BUF_INIT, other = BUF_INIT, again = BUF_INIT;
		cleanup_close int a = dial(), b = dial(), c = dial(), d = dial();
		int before = rig->requests;
		bool counted = i < 2;

		say_as(a, many[i]);
		say_as(b, many[i]);
		WAIT_FOR(rig->requests == before + 2);
		say_as(c, same[i]);
		if (counted) {
			HEAR_END(c, &in);
			assert_true(has(&in, "429 Too Many Requests") && has(&in, "Retry-After: 2\r\n"));
		} else {
			say(c, "ok");
			HEAR_UNTIL(c, &in, "ok");
		}
		say_as(d, i ? "192.0.2.2" : "2001:db8:0:1::1");
		say(d, "ok");
		HEAR_UNTIL(d, &other, "ok");
		say(a, "ok");
		HEAR_UNTIL(a, &again, "ok");
		buf_clear(&again);
		say_as(a, same[i]);
		say(a, "ko");
		HEAR_UNTIL(a, &again, "ko");
	}
}

/* One that waits for its turn has left the kernel's queue: the next server would not get it. */
static void who_waits_is_served_at_the_end(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_close int a = dial(), b = dial();

	(void)state;
	http_server_limits(rig->s, &(struct http_limits){.connections = 1});
	say(a, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
	say(b, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
	HEAR_UNTIL(a, &in, "/a");
	http_server_drain(rig->s, NULL, NULL);
	HEAR_UNTIL(b, &in, "/b");
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(peer_leaves_anywhere),
	    T(half_close_still_gets_a_ready_answer),
	    T(time_outs),
	    T(connections_wait_their_turn),
	    T(requests_of_one_client),
	    T(who_waits_is_served_at_the_end),
	    T(random_peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
