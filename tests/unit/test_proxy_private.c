/* A whole proxy process whose Spaces become private, or another one's, while something of before is under way: nothing passes the
 * new gate that was not judged by it. */
#include "tests/unit/proxy_rig.h"

#define ONE "0123456789abcdef01234567"
#define TWO "76543210fedcba9876543210"

static void route_space(int control, enum route_kind kind, const char *id, bool gated, uint16_t port)
{
	struct route r = {.kind = kind, .host = "a.test", .space = "alice/one", .gated = gated, .port = port};

	snprintf(r.space_id, sizeof r.space_id, "%s", id);
	if (kind == ROUTE_APP) {
		r.nendpoints = 1;
		r.endpoints[0] = (struct endpoint){.name = "app-1-1", .generation = 1};
	}
	send_route(control, &r);
}

static int held(struct fixture *f)
{
	int client = dial(f->port);

	ask(client, "a.test");
	return client;
}

static void nobody_connects(struct fixture *f)
{
	struct pollfd p = {.fd = f->spawner, .events = POLLIN};

	commit(f->control); /* what came before it has been done */
	assert_int_equal(poll(&p, 1, 0), 0);
}

/* In one step of the table the host is another Space's: a ticket for the first, if it took one, says nothing there. */
static void held_for_another_space(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;

	reset(f->control);
	route_space(f->control, ROUTE_HOLD, ONE, false, 0);
	commit(f->control);
	int client = held(f);
	hear_wake(f->control);
	reset(f->control);
	route_space(f->control, ROUTE_APP, TWO, false, f->app_port);
	commit(f->control);
	nobody_connects(f);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	close(client);
}

/* While a snapshot comes in the routes of before are served. What they have let in by then is no exception. */
static void held_while_a_snapshot_comes(void **state)
{
	struct fixture *f = *state;

	reset(f->control);
	route_space(f->control, ROUTE_HOLD, ONE, false, 0);
	commit(f->control);
	reset(f->control);
	route_space(f->control, ROUTE_APP, ONE, true, f->app_port);
	int client = held(f);
	hear_wake(f->control);
	commit(f->control);
	nobody_connects(f);
	wait_readable(client);
	assert_int_equal(read(client, &(char){0}, 1), 0);
	close(client);
}

/* Below a wildcard as well: the route that let it in is found by its own place in the table. */
static void streams_below_a_wildcard(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	static const char events[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
	struct route r = {.kind = ROUTE_APP,
			  .host = "*.b.test",
			  .space = "alice/one",
			  .space_id = ONE,
			  .port = f->app_port,
			  .nendpoints = 1,
			  .endpoints[0] = {.name = "app-1-1", .generation = 1}};

	reset(f->control);
	send_route(f->control, &r);
	commit(f->control);
	int stream = dial(f->port);
	ask(stream, "any.b.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	read_until(app, "\r\n\r\n", &b);
	assert_int_equal(write(app, events, sizeof events - 1), sizeof events - 1);
	read_until(stream, "data: 1", &b);
	r.gated = true;
	send_route(f->control, &r);
	commit(f->control);
	for (ssize_t n = 1; n > 0;) {
		wait_readable(stream);
		n = read(stream, (char[256]){0}, 256);
	}
	close(app);
	close(stream);
}

static void streams_while_a_snapshot_comes(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	static const char events[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
	static const char half[] = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";

	reset(f->control);
	route_space(f->control, ROUTE_APP, ONE, false, f->app_port);
	commit(f->control);
	reset(f->control);
	route_space(f->control, ROUTE_APP, ONE, true, f->app_port);
	int stream = held(f);
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	read_until(app, "\r\n\r\n", &b);
	assert_int_equal(write(app, events, sizeof events - 1), sizeof events - 1);
	read_until(stream, "data: 1", &b);
	int plain = held(f);
	int second = accept_app(f);
	read_until(second, "\r\n\r\n", &b);
	assert_int_equal(write(second, half, sizeof half - 1), sizeof half - 1);
	read_until(plain, "half", &b);
	commit(f->control);
	for (ssize_t n = 1; n > 0;) {
		wait_readable(stream);
		n = read(stream, (char[256]){0}, 256);
	}
	assert_int_equal(write(second, "done", 4), 4); /* other responses under way end */
	read_until(plain, "done", &b);
	close(app);
	close(second);
	close(stream);
	close(plain);
}

/* Asked for when the Space was public, begun when it is not. What has an end is answered. */
static void streams_that_begin_later(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	static const char events[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";

	reset(f->control);
	route_space(f->control, ROUTE_APP, ONE, false, f->app_port);
	commit(f->control);
	int stream = held(f);
	spawn_sockets(f->spawner, "app-1-1");
	int first = accept_app(f);
	read_until(first, "\r\n\r\n", &b);
	int plain = held(f);
	int second = accept_app(f);
	route_space(f->control, ROUTE_APP, ONE, true, f->app_port);
	commit(f->control);
	assert_int_equal(write(first, events, sizeof events - 1), sizeof events - 1);
	wait_readable(stream);
	assert_int_equal(read(stream, &(char){0}, 1), 0);
	app_answers(second, "an end");
	read_until(plain, "an end", &b);
	close(first);
	close(second);
	close(stream);
	close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(held_for_another_space),   TEST(held_while_a_snapshot_comes), TEST(streams_while_a_snapshot_comes),
	    TEST(streams_below_a_wildcard), TEST(streams_that_begin_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
