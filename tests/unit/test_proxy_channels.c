/* A whole proxy process as the daemon runs it: the test is its parent, its control and its spawner, and the apps. */
#include "tests/unit/proxy_rig.h"

static void waits_for_the_first_commit(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	ask(client, "a.test");
	reset(f->control);
	route_page(f->control, "a.test", 503, true);
	struct pollfd p = {.fd = client, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 200), 0); /* no answer while the routes are not whole */
	commit(f->control, 1);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	assert_non_null(strstr(b.data, "http-equiv=\"refresh\""));
	assert_non_null(strstr(b.data, "Building &lt;it&gt;"));
	assert_non_null(strstr(b.data, "step 1 &amp; 2"));
	close(client);
}

static void sockets_of_the_spawner_are_pooled(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control, 1);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "one");
	read_until(client, "one", &b);
	for (int i = 0; i < 5; i++) {
		ask(client, "a.test");
		app_answers(app, "again");
		read_until(client, "again", &b);
	}
	/* What it did is told. */
	struct frame frame;
	char space[200];
	hear(f->control, PROXY_ACTIVITY, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	assert_int_equal(get_u32(&r), 1);
	assert_true(get_str(&r, space, sizeof space));
	assert_string_equal(space, "alice/one");
	assert_true(get_u64(&r) >= 1);
	frame_release(&frame);
	close(app);
	close(client);
}

static void errors_of_the_spawner(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);
	int pair[2];

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control, 1);
	ask(client, "a.test");
	spawn_error(f->spawner, ENOENT);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));

	/* It dies while a request waits for it. */
	ask(client, "a.test");
	wait_readable(f->spawner);
	close(f->spawner);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));

	/* Control hands over the new one. */
	assert_int_equal(frame_pair(pair), 0);
	say(f->control, PROXY_SPAWNER, NULL, pair[1]);
	close(pair[1]);
	f->spawner = pair[0];
	commit(f->control, 2);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "back");
	read_until(client, "back", &b);
	close(app);
	close(client);
}

static void refused_by_the_app(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);
	uint16_t nobody;

	close(listen_any(&nobody));
	reset(f->control);
	route_app(f->control, "a.test", 1, nobody);
	commit(f->control, 1);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 502 "));
	assert_non_null(strstr(b.data, "nothing listens on port"));
	close(client);
}

static void deploy_drains_the_old(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_buf struct buf drain = BUF_INIT;
	struct frame frame;
	int old_client = dial(f->port), new_client = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control, 1);
	ask(old_client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int old_app = accept_app(f); /* has the request, answers later */

	route_app(f->control, "a.test", 2, f->app_port);
	put_str(&drain, "app-1-1");
	put_u32(&drain, 1);
	say(f->control, PROXY_DRAIN, &drain, -1);
	commit(f->control, 2);
	ask(new_client, "a.test");
	spawn_sockets(f->spawner, "app-1-2");
	int new_app = accept_app(f);
	app_answers(new_app, "new");
	read_until(new_client, "new", &b);

	app_answers(old_app, "old");
	read_until(old_client, "old", &b);
	hear(f->control, PROXY_IDLE, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	char name[81];
	get_str(&r, name, sizeof name);
	assert_string_equal(name, "app-1-1");
	assert_int_equal(get_u32(&r), 1);
	frame_release(&frame);
	wait_readable(old_app);
	assert_int_equal(read(old_app, name, 1), 0); /* closed, not pooled */

	/* One that it never heard of is idle at once. */
	buf_clear(&drain);
	put_str(&drain, "app-9-9");
	put_u32(&drain, 9);
	say(f->control, PROXY_DRAIN, &drain, -1);
	hear(f->control, PROXY_IDLE, &frame);
	frame_release(&frame);
	close(old_app);
	close(new_app);
	close(old_client);
	close(new_client);
}

static void lives_without_control(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);
	int pair[2];

	reset(f->control);
	route_page(f->control, "a.test", 200, false);
	commit(f->control, 1);
	/* A snapshot that is never committed is nothing. */
	reset(f->control);
	route_page(f->control, "b.test", 200, false);
	close(f->control);
	for (int i = 0; i < 3; i++) {
		ask(client, "a.test");
		read_until(client, "</html>", &b);
		assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	}
	assert_int_equal(frame_pair(pair), 0);
	say(f->parent, PROXY_NEW_CONTROL, NULL, pair[1]);
	close(pair[1]);
	f->control = pair[0];
	reset(f->control);
	route_page(f->control, "c.test", 200, false);
	commit(f->control, 2);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	ask(client, "b.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 404 "));
	ask(client, "c.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	close(client);
}

static void garbage_ends_the_channel_only(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);
	char c;

	reset(f->control);
	route_page(f->control, "a.test", 200, false);
	commit(f->control, 1);
	buf_adds(&b, "garbage");
	say(f->control, PROXY_ROUTE, &b, -1);
	wait_readable(f->control);
	assert_int_equal(recv(f->control, &c, 1, 0), 0);
	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 200 "));
	close(client);
}

static void ends_with_its_parent(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port), idle = dial(f->port);
	int status;

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control, 1);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	shutdown(f->parent, SHUT_RDWR);
	wait_readable(idle);
	assert_int_equal(read(idle, &(char){0}, 1), 0); /* idle ones are closed at once */
	app_answers(app, "last");
	read_until(client, "last", &b);
	assert_non_null(strstr(b.data, "Connection: close"));
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(app);
	close(client);
	close(idle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(waits_for_the_first_commit),	 TEST(sockets_of_the_spawner_are_pooled),
	    TEST(errors_of_the_spawner),	 TEST(refused_by_the_app),
	    TEST(deploy_drains_the_old),	 TEST(lives_without_control),
	    TEST(garbage_ends_the_channel_only), TEST(ends_with_its_parent),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
