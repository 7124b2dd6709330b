/* A whole proxy process and a route with several endpoints: who gets a request, who keeps it, what happens when one is gone. */
#include "tests/unit/proxy_rig.h"

#define ENDPOINTS 3
#define KEY "0123456789abcdef0123456789abcdef"

static struct {
	int listener, place; /* place: keeps the port when nobody listens any more */
	uint16_t port;
} ends[ENDPOINTS];

static int open_ends(void **state)
{
	int r = setup(state);

	/* After it: what this process closes is closed. */
	for (int i = 0; i < ENDPOINTS; i++) {
		ends[i].port = 0;
		ends[i].place = bind_port(&ends[i].port);
		ends[i].listener = listen_port(&ends[i].port);
	}
	return r;
}

static void listen_no_more(unsigned i)
{
	if (ends[i].listener >= 0)
		close(ends[i].listener);
	ends[i].listener = -1;
}

static int close_ends(void **state)
{
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		listen_no_more(i);
		close(ends[i].place);
	}
	return teardown(state);
}

/* Those whose bit is set in `which`. */
static void route_ends(int control, unsigned which, bool sticky)
{
	struct route r = {.kind = ROUTE_TCP, .host = "a.test", .space = "alice/one"};

	for (unsigned i = 0; i < ENDPOINTS; i++)
		if (which & 1U << i)
			snprintf(r.endpoints[r.nendpoints++].name, sizeof r.endpoints->name, "127.0.0.1:%u",
				 ends[i].port);
	if (sticky)
		memcpy(r.sticky, KEY, sizeof KEY);
	memset(r.space_id, '1', sizeof r.space_id - 1);
	send_route(control, &r);
}

static void serve(struct fixture *f, unsigned which, bool sticky)
{
	reset(f->control);
	route_ends(f->control, which, sticky);
	commit(f->control);
}

/* `more`: header lines. */
static void send_request(int fd, const char *method, const char *more)
{
	cleanup_buf struct buf b = BUF_INIT;

	buf_addf(&b, "%s / HTTP/1.1\r\nHost: a.test\r\nAccept: application/json\r\n%s\r\n", method, more);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

/* Waits until one of them has a connection to accept; which it was is told. */
static int accept_any(unsigned *which)
{
	struct pollfd p[ENDPOINTS];

	*which = 0;
	for (int i = 0; i < ENDPOINTS; i++)
		p[i] = (struct pollfd){.fd = ends[i].listener, .events = POLLIN};
	assert_true(poll(p, ENDPOINTS, PATIENCE_MS) > 0);
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		if (!(p[i].revents & POLLIN))
			continue;
		*which = i;
		int fd = accept4(ends[i].listener, NULL, NULL, SOCK_CLOEXEC);
		assert_true(fd >= 0);
		return fd;
	}
	fail();
	return -1;
}

static void the_fewest_in_flight(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int clients[3 * ENDPOINTS + 1] = {0}, apps[3 * ENDPOINTS] = {0}, at[3 * ENDPOINTS] = {0};
	unsigned count[ENDPOINTS] = {0};

	serve(f, 7, false);
	for (int i = 0; i < 3 * ENDPOINTS; i++) {
		unsigned which = 0;
		clients[i] = dial(f->port);
		send_request(clients[i], "GET", "");
		apps[i] = accept_any(&which);
		at[i] = (int)which;
		count[which]++;
		for (unsigned k = 0; k < ENDPOINTS; k++) /* never two more than another */
			assert_true(count[k] + 1 >= count[which]);
	}
	for (unsigned k = 0; k < ENDPOINTS; k++)
		assert_int_equal(count[k], 3);
	/* One comes free: the next request goes there, on its connection. */
	app_answers(apps[4], "free");
	read_until(clients[4], "free", &b);
	clients[3 * ENDPOINTS] = dial(f->port);
	send_request(clients[3 * ENDPOINTS], "GET", "");
	app_answers(apps[4], "reused");
	read_until(clients[3 * ENDPOINTS], "reused", &b);
	assert_null(strstr(b.data, "Set-Cookie"));
	assert_in_range(at[4], 0, ENDPOINTS - 1);
	for (int i = 0; i < 3 * ENDPOINTS; i++) {
		close(apps[i]);
		close(clients[i]);
	}
	close(clients[3 * ENDPOINTS]);
}

/* Nobody listens at two of three: whatever the method, each request comes to the third, for nothing of it was sent before. */
static void one_that_takes_no_connection(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	unsigned which = 0;

	listen_no_more(0);
	listen_no_more(1);
	serve(f, 7, false);
	for (int i = 0; i < 20; i++) {
		int client = dial(f->port);
		send_request(client, i % 2 ? "POST" : "GET", i % 2 ? "Content-Length: 4\r\n" : "");
		if (i % 2)
			assert_int_equal(write(client, "body", 4), 4);
		int app = accept_any(&which);
		assert_int_equal(which, 2);
		app_answers(app, "here");
		read_until(client, "here", &b);
		assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
		close(app);
		close(client);
	}
	/* All three: one answer, no endless search. */
	listen_no_more(2);
	int client = dial(f->port);
	send_request(client, "GET", "");
	read_until(client, "}\n", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));
	close(client);
}

static void cookie_of(const struct buf *answer, char out[64])
{
	const char *at = strstr(answer->data, "Set-Cookie: ");

	assert_non_null(at);
	assert_int_equal(sscanf(at, "Set-Cookie: %63[^;]", out), 1);
	assert_non_null(strstr(at, "; Path=/; HttpOnly; SameSite=Lax\r\n"));
}

/* A connection that was kept breaks under the request: only what may be sent twice is (rule 18), and nothing goes elsewhere. */
static void a_stale_connection(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	char cookie[64] = "", line[160];
	unsigned mine = 0, which = 0;

	serve(f, 3, true);
	int client = dial(f->port);
	send_request(client, "GET", "");
	int app = accept_any(&mine);
	app_answers(app, "first");
	read_until(client, "first", &b);
	cookie_of(&b, cookie);
	snprintf(line, sizeof line, "Cookie: %s\r\n", cookie);
	send_request(client, "GET", line);
	read_until(app, "\r\n\r\n", &b);
	close(app);
	app = accept_any(&which);
	assert_int_equal(which, mine);
	app_answers(app, "again");
	read_until(client, "again", &b);

	snprintf(line, sizeof line, "Cookie: %s\r\nContent-Length: 0\r\n", cookie);
	send_request(client, "POST", line);
	read_until(app, "\r\n\r\n", &b);
	close(app);
	read_until(client, "}\n", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));
	for (int i = 0; i < 2; i++)
		assert_int_equal(accept4(ends[i].listener, NULL, NULL, 0), -1);
	close(client);
}

static void sticky_visitors(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT, head = BUF_INIT;
	char cookie[64] = "", other_cookie[64] = "", line[160];
	int busy[4] = {0}, held[4] = {0};
	unsigned mine = 0, which = 0;

	serve(f, 7, true);
	int client = dial(f->port);
	send_request(client, "GET", "");
	int app = accept_any(&mine);
	app_answers(app, "first");
	read_until(client, "first", &b);
	cookie_of(&b, cookie);
	assert_null(strstr(cookie, "127"));
	snprintf(line, sizeof line, "%u", ends[mine].port);
	assert_null(strstr(cookie, line));
	close(app);

	/* However busy the visitor's own is; the app does not see the cookie, nor is it set again. */
	snprintf(line, sizeof line, "Cookie: a=b; %s\r\n", cookie);
	for (int i = 0; i < 4; i++) {
		busy[i] = dial(f->port);
		send_request(busy[i], "GET", line);
		held[i] = accept_any(&which);
		assert_int_equal(which, mine);
	}
	read_until(held[0], "\r\n\r\n", &head);
	assert_non_null(strstr(head.data, "a=b\r\n"));
	assert_null(strstr(head.data, "spaced-instance"));
	assert_int_equal(write(held[0], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: own=1\r\n\r\nok", 59), 59);
	read_until(busy[0], "ok", &b);
	assert_non_null(strstr(b.data, "Set-Cookie: own=1"));
	assert_null(strstr(b.data, "spaced-instance"));

	/* It is gone: another, and the cookie of that. */
	route_ends(f->control, 7 & ~(1U << mine), true);
	commit(f->control);
	send_request(client, "GET", line);
	app = accept_any(&which);
	assert_int_not_equal(which, mine);
	app_answers(app, "second");
	read_until(client, "second", &b);
	cookie_of(&b, other_cookie);
	assert_string_not_equal(cookie, other_cookie);
	/* Nothing to choose: no cookie. */
	route_ends(f->control, 1U << which, true);
	commit(f->control);
	send_request(client, "GET", "");
	app_answers(app, "third");
	read_until(client, "third", &b);
	assert_null(strstr(b.data, "Set-Cookie"));
	close(app);
	for (int i = 0; i < 4; i++) {
		close(busy[i]);
		close(held[i]);
	}
	close(client);
}

/* Its own takes no connection any more, though the route still has it. */
static void a_sticky_one_that_is_dead(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	char cookie[64] = "", line[160];
	unsigned mine = 0, which = 0;

	serve(f, 3, true);
	int client = dial(f->port);
	send_request(client, "GET", "");
	int app = accept_any(&mine);
	app_answers(app, "first");
	read_until(client, "first", &b);
	cookie_of(&b, cookie);
	close(app);
	listen_no_more(mine);
	snprintf(line, sizeof line, "Cookie: %s\r\nContent-Length: 0\r\n", cookie);
	send_request(client, "POST", line);
	app = accept_any(&which);
	assert_int_not_equal(which, mine);
	app_answers(app, "second");
	read_until(client, "second", &b);
	cookie_of(&b, line);
	assert_string_not_equal(cookie, line);
	close(app);
	close(client);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_ends, close_ends)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_fewest_in_flight), TEST(one_that_takes_no_connection), TEST(a_stale_connection),
	    TEST(sticky_visitors),	TEST(a_sticky_one_that_is_dead),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
