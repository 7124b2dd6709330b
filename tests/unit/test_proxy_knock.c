/* A whole proxy process and an app whose queue has little room or none: who waits how, and how long. */
#include <netinet/tcp.h>

#include "base/io.h"

#include "tests/unit/proxy_rig.h"

#define CROWD 16

#define NAME 81 /* of an instance */

/* Sockets for `want` who wait, of which this process keeps its own descriptors, and the instance that they are to. */
static void open_sockets(int spawner, char name[NAME], int *fds, int want)
{
	struct frame f;
	int made = 0;

	while (made < want) {
		wait_readable(spawner);
		assert_int_equal(frame_recv(spawner, &f), 1);
		struct reader r = reader_of(f.payload, f.len);
		get_str(&r, name, NAME);
		uint32_t n = get_u32(&r);
		assert_true(get_ok(&r) && n <= CROWD);
		if (n > (uint32_t)(want - made))
			n = (uint32_t)(want - made);
		for (uint32_t i = 0; i < n; i++)
			fds[made + (int)i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_int_equal(frame_send(spawner, SPAWN_OK, f.id, NULL, 0, fds + made, (int)n), 0);
		made += (int)n;
		frame_release(&f);
	}
}

static int begun(const int fds[CROWD])
{
	int n = 0;

	for (int i = 0; i < CROWD; i++) {
		struct tcp_info info;
		socklen_t len = sizeof info;
		assert_int_equal(getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &info, &len), 0);
		n += info.tcpi_state != TCP_CLOSE;
	}
	return n;
}

static bool silent(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, ms) == 0;
}

/* Its connection is for nobody else: each of the sockets that were made is for one request. */
static void app_answers_once(int app)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
	cleanup_buf struct buf b = BUF_INIT;

	read_until(app, "\r\n\r\n", &b);
	assert_int_equal(write(app, answer, sizeof answer - 1), sizeof answer - 1);
	close(app);
}

/* All those clients have asked, and the spawner is about to be: few knock at once, each is answered. */
static void crowd_is_served(struct fixture *f, const int clients[CROWD])
{
	int fds[CROWD];
	char name[NAME];

	open_sockets(f->spawner, name, fds, CROWD);
	for (int i = 0; begun(fds) < 2 && i < PATIENCE_MS / 10; i++)
		usleep(10000);
	assert_true(silent(clients[CROWD - 1], 500));
	assert_in_range(begun(fds), 2, 2 + 4);
	for (int i = 0; i < CROWD; i++)
		app_answers_once(accept_app(f));
	for (int i = 0; i < CROWD; i++) {
		cleanup_buf struct buf b = BUF_INIT;
		read_until(clients[i], "HTTP/1.1 200 ", &b);
		close(clients[i]);
		close(fds[i]);
	}
}

static void no_crowd_after_the_spawner(void **state)
{
	struct fixture *f = *state;
	int clients[CROWD];

	assert_int_equal(listen(f->app, 1), 0);
	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	for (int i = 0; i < CROWD; i++) {
		clients[i] = dial(f->port);
		ask(clients[i], "a.test");
	}
	commit(f->control);
	crowd_is_served(f, clients);
}

static void no_crowd_after_sleep(void **state)
{
	struct fixture *f = *state;
	struct route hold = {.kind = ROUTE_HOLD, .host = "a.test", .space = "alice/one"};
	int clients[CROWD];

	assert_int_equal(listen(f->app, 1), 0);
	hold.page_title = hold.page_text = (char[]){""};
	reset(f->control);
	send_route(f->control, &hold);
	commit(f->control);
	for (int i = 0; i < CROWD; i++) {
		clients[i] = dial(f->port);
		ask(clients[i], "a.test");
	}
	hear_wake(f->control);
	hear_held(f->control, CROWD);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	crowd_is_served(f, clients);
}

/* Its queue has one place, which the returned connection takes. */
static int fill_queue(int app, uint16_t port)
{
	assert_int_equal(listen(app, 0), 0);
	return dial(port);
}

#define BATCH 4 /* sockets that are asked for at least */

/* The port that one of them is bound to, 0: none is. */
static uint16_t port_of(const int fds[BATCH])
{
	uint16_t port = 0;

	for (int i = 0; i < BATCH; i++) {
		struct sockaddr_in sa = {0};
		socklen_t len = sizeof sa;
		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&sa, &len), 0);
		port |= ntohs(sa.sin_port);
	}
	return port;
}

/* A connection that is begun anew comes from another port; TCP's own repetitions never do. */
static void wait_for_knocks(const int fds[BATCH], int n)
{
	uint16_t last = 0;

	for (uint64_t until = io_now_ms() + PATIENCE_MS; n > 0; usleep(1000)) {
		uint16_t port = port_of(fds);
		n -= port != 0 && port != last;
		last = port ? port : last;
		assert_true(io_now_ms() < until);
	}
}

static void close_all(const int fds[BATCH])
{
	for (int i = 0; i < BATCH; i++)
		close(fds[i]);
}

/* One that has got a place and left in the same moment says nothing. */
static int accept_one_that_asks(struct fixture *f)
{
	for (;;) {
		int app = accept_app(f);
		char byte;
		wait_readable(app);
		if (recv(app, &byte, 1, MSG_PEEK) > 0)
			return app;
		close(app);
	}
}

static void answered(struct fixture *f, int client)
{
	cleanup_buf struct buf b = BUF_INIT;
	int app = accept_one_that_asks(f);

	app_answers(app, "here");
	read_until(client, "here", &b);
	close(app);
	close(client);
}

static void leave_queue(int app)
{
	wait_readable(app);
	close(accept4(app, NULL, NULL, SOCK_CLOEXEC));
}

static void knocks_until_there_is_a_place(void **state)
{
	struct fixture *f = *state;
	int other = fill_queue(f->app, f->app_port);
	int client = ask_app(f), fds[BATCH];
	char name[NAME];

	open_sockets(f->spawner, name, fds, BATCH);
	wait_for_knocks(fds, 4);
	leave_queue(f->app);
	answered(f, client);
	close(other);
	close_all(fds);
}

/* It is busy, as an app is that takes a request and does not answer: not for ever. */
static void a_full_queue_has_its_time(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int other = fill_queue(f->app, f->app_port);
	uint64_t since = io_now_ms();
	int client = ask_app(f);

	spawn_sockets(f->spawner, "app-1-1");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 504 "));
	assert_true(io_now_ms() - since >= rig_limits.hold_ms);
	close(client);
	close(other);
}

/* Nothing of it comes to the app, and the next one is served. */
static void who_leaves_knocks_no_more(void **state)
{
	static const struct linger none = {.l_onoff = 1};
	struct fixture *f = *state;
	int other = fill_queue(f->app, f->app_port);
	int client = ask_app(f), fds[BATCH];
	char name[NAME];

	open_sockets(f->spawner, name, fds, BATCH);
	wait_for_knocks(fds, 2);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none);
	close(client);
	client = dial(f->port);
	ask(client, "a.test");
	leave_queue(f->app);
	answered(f, client);
	assert_true(silent(f->app, 0));
	close_all(fds);
	close(other);
}

/* One replica after the other has no place: then it waits for the last one, as for the only one. */
static void both_replicas_are_full(void **state)
{
	struct fixture *f = *state;
	struct route r = {
	    .kind = ROUTE_APP, .nendpoints = 2, .port = f->app_port, .host = "a.test", .space = "alice/one"};
	int other = fill_queue(f->app, f->app_port);
	int client = dial(f->port), fds[2][BATCH];
	char first[NAME], second[NAME];

	for (uint32_t i = 0; i < 2; i++) {
		r.endpoints[i].generation = i + 1;
		snprintf(r.endpoints[i].name, sizeof r.endpoints[i].name, "app-1-%u", i + 1);
	}
	reset(f->control);
	send_route(f->control, &r);
	commit(f->control);
	ask(client, "a.test");
	open_sockets(f->spawner, first, fds[0], BATCH);
	open_sockets(f->spawner, second, fds[1], BATCH);
	assert_string_not_equal(first, second);
	assert_true(silent(client, (int)rig_limits.connect_ms * 4));
	leave_queue(f->app);
	answered(f, client);
	close_all(fds[0]);
	close_all(fds[1]);
	close(other);
}

/* An app that has no place for another connection, but has kept one alive: that is for who has waited longest, not for who
 * comes next on it. */
static void who_knocks_gets_what_was_kept(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int first = ask_app(f), fd, fds[BATCH];
	char name[NAME];

	open_sockets(f->spawner, name, &fd, 1);
	int app = accept_app(f);
	int other = fill_queue(f->app, f->app_port);
	int second = dial(f->port);
	ask(second, "a.test");
	open_sockets(f->spawner, name, fds, BATCH);
	wait_for_knocks(fds, 3);
	ask(first, "a.test"); /* behind its own first one: it comes when that is answered */
	app_answers(app, "one");
	app_answers(app, "two");
	read_until(second, "two", &b);
	app_answers(app, "three");
	read_until(first, "three", &b);
	close(first);
	close(second);
	close(other);
	close(app);
	close(fd);
	close_all(fds);
}

/* The same for those in line behind the few that knock. */
static void who_is_in_line_gets_what_was_kept(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int first = ask_app(f), others[8];

	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	int other = fill_queue(f->app, f->app_port);
	for (size_t i = 0; i < 8; i++) {
		others[i] = dial(f->port);
		ask(others[i], "a.test");
	}
	spawn_sockets(f->spawner, "app-1-1");
	assert_true(silent(others[7], 100));
	for (size_t i = 0; i < 9; i++)
		app_answers(app, "here");
	read_until(first, "here", &b);
	close(first);
	for (size_t i = 0; i < 8; i++) {
		read_until(others[i], "here", &b);
		close(others[i]);
	}
	close(other);
	close(app);
}

#define MANY 64

/* How long it takes until the app has all those connections: ms. */
static uint64_t all_come(struct fixture *f, const char *request)
{
	int clients[MANY], apps[MANY];

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	for (int i = 0; i < MANY; i++) {
		clients[i] = dial(f->port);
		assert_int_equal(write(clients[i], request, strlen(request)), (ssize_t)strlen(request));
	}
	uint64_t since = io_now_ms();
	for (int i = 0; i < MANY;) {
		struct pollfd p[2] = {{.fd = f->app, .events = POLLIN}, {.fd = f->spawner, .events = POLLIN}};
		assert_true(poll(p, 2, PATIENCE_MS) > 0);
		if (p[1].revents)
			spawn_sockets(f->spawner, "app-1-1");
		if (p[0].revents)
			apps[i++] = accept_app(f);
	}
	uint64_t ms = io_now_ms() - since;
	for (int i = 0; i < MANY; i++) {
		close(clients[i]);
		close(apps[i]);
	}
	return ms;
}

/* One is taken with what was sent first, as a request without a body is: nobody waits for a timer (8 ms, four at a time) then. */
static bool uploads_are_as_quick(struct fixture *f)
{
	uint64_t others = all_come(f, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");

	return all_come(f, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi") <
	       others + MANY / 4 * 8 / 2;
}

static void uploads_wait_for_no_timer(void **state)
{
	catch_moment(state, uploads_are_as_quick);
}

/* Perhaps nobody is there any more: it has no more than the time of one try, places are few. */
static void who_says_no_more_waits_briefly(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int other = fill_queue(f->app, f->app_port);
	uint64_t since = io_now_ms();
	int client = ask_app(f);

	spawn_sockets(f->spawner, "app-1-1");
	shutdown(client, SHUT_WR);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 504 "));
	assert_true(io_now_ms() - since < PATIENCE_MS / 2);
	close(client);
	close(other);
}

/* Nothing of them was sent when the worker ends: they are told so. */
static void the_end_is_told(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int other = fill_queue(f->app, f->app_port);
	int clients[6];

	clients[0] = ask_app(f);
	spawn_sockets(f->spawner, "app-1-1");
	for (size_t i = 1; i < 6; i++) {
		clients[i] = dial(f->port);
		ask(clients[i], "a.test");
	}
	assert_true(silent(clients[5], 100));
	kill(f->pid, SIGTERM);
	for (size_t i = 0; i < 6; i++) {
		read_until(clients[i], "</html>", &b);
		assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
		close(clients[i]);
	}
	wait_end(f);
	close(other);
}

/* While the worker stands still nobody is heard: that is none of the time that one may wait. */
static void a_standstill_is_no_waiting(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int other = fill_queue(f->app, f->app_port);
	uint64_t since = io_now_ms();
	int client = ask_app(f);
	uint32_t stop_ms = rig_limits.hold_ms + 2000;

	spawn_sockets(f->spawner, "app-1-1");
	assert_true(silent(client, 100));
	kill(f->pid, SIGSTOP);
	usleep(stop_ms * 1000);
	kill(f->pid, SIGCONT);
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 504 "));
	assert_true(io_now_ms() - since >=
		    rig_limits.hold_ms + stop_ms - 500); /* that much of it looks like an idle loop */
	close(client);
	close(other);
}

static void cut(int control, const char *instance, uint32_t generation)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, instance);
	put_u32(&b, generation);
	say(control, PROXY_CUT, &b, -1);
}

#define FOLLOWERS 6 /* more than knock at a time */

/* Its queue is full, and they wait: some knock, the others are in line. */
static int followers(struct fixture *f, int clients[FOLLOWERS])
{
	int other = fill_queue(f->app, f->app_port), fds[FOLLOWERS];
	char name[NAME];

	clients[0] = ask_app(f);
	for (int i = 1; i < FOLLOWERS; i++) {
		clients[i] = dial(f->port);
		ask(clients[i], "a.test");
	}
	open_sockets(f->spawner, name, fds, FOLLOWERS);
	for (int i = 0; i < FOLLOWERS; i++)
		close(fds[i]);
	assert_true(silent(clients[0], 100));
	return other;
}

/* Whoever has sent nothing to the version before goes to the next one: who is in line at once, who knocks when it is cut. */
static void the_line_follows_its_route(void **state)
{
	struct fixture *f = *state;
	int clients[FOLLOWERS];
	int other = followers(f, clients);
	uint16_t port = 0;
	int next = listen_port(&port), before = f->app;

	route_app(f->control, "a.test", 2, port);
	cut(f->control, "app-1-1", 1);
	pid_t spawner = fork();
	if (spawner == 0)
		for (int fd;;) {
			char name[NAME];
			open_sockets(f->spawner, name, &fd, 1);
			close(fd);
		}
	f->app = next;
	for (int i = 0; i < FOLLOWERS; i++)
		app_answers_once(accept_one_that_asks(f));
	for (int i = 0; i < FOLLOWERS; i++) {
		cleanup_buf struct buf b = BUF_INIT;
		read_until(clients[i], "HTTP/1.1 200 ", &b);
		close(clients[i]);
	}
	kill(spawner, SIGKILL);
	waitpid(spawner, NULL, 0);
	close(before);
	close(other);
}

/* Their app sleeps by now: they wait for it as whoever comes then, and it is woken. */
static void the_line_waits_for_a_sleeper(void **state)
{
	struct fixture *f = *state;
	struct route hold = {.kind = ROUTE_HOLD, .host = "a.test", .space = "alice/one"};
	int clients[FOLLOWERS];
	int other = followers(f, clients);

	hold.page_title = hold.page_text = (char[]){""};
	send_route(f->control, &hold);
	cut(f->control, "app-1-1", 1);
	hear_wake(f->control);
	hear_held(f->control, FOLLOWERS);
	for (int i = 0; i < FOLLOWERS; i++)
		close(clients[i]);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(no_crowd_after_the_spawner),	 TEST(no_crowd_after_sleep),
	    TEST(knocks_until_there_is_a_place), TEST(who_leaves_knocks_no_more),
	    TEST(who_knocks_gets_what_was_kept), TEST(who_is_in_line_gets_what_was_kept),
	    TEST(uploads_wait_for_no_timer),	 TEST(the_line_follows_its_route),
	    TEST(the_line_waits_for_a_sleeper),
	};
	const struct CMUnitTest hasty[] = {TEST(both_replicas_are_full), TEST(who_says_no_more_waits_briefly)};
	const struct CMUnitTest ending[] = {TEST(the_end_is_told)};
	const struct CMUnitTest briefly[] = {TEST(a_full_queue_has_its_time), TEST(a_standstill_is_no_waiting)};

	signal(SIGPIPE, SIG_IGN);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	rig_limits.connect_ms = 300;
	failed += cmocka_run_group_tests(hasty, NULL, NULL);
	rig_limits.drain_ms = 300;
	failed += cmocka_run_group_tests(ending, NULL, NULL);
	rig_limits.hold_ms = 1000;
	return failed + cmocka_run_group_tests(briefly, NULL, NULL);
}
