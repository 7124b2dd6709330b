/* A whole proxy process with an app that sleeps: what is held, what wakes it, who gets an answer in the end. */
#include "base/io.h"

#include "tests/unit/proxy_rig.h"

#define CLIENTS 40

static void route_hold(int control, const char *text)
{
	struct route r = {.kind = ROUTE_HOLD, .host = "a.test", .space = "alice/one"};

	r.page_title = (char[]){"Waking up"};
	r.page_text = (char *)(uintptr_t)text;
	send_route(control, &r);
}

static void asleep(struct fixture *f)
{
	reset(f->control);
	route_hold(f->control, "It slept.");
	commit(f->control);
}

/* After a commit everything that was said before it has been answered: nothing but activity may have come. */
static void no_wake(struct fixture *f)
{
	commit(f->control);
}

static void program_asks(int fd, const char *more)
{
	cleanup_buf struct buf b = BUF_INIT;
	buf_addf(&b, "GET /api HTTP/1.1\r\nHost: a.test\r\nAccept: application/json\r\n%s\r\n", more);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

static bool silent(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, ms) == 0;
}

/* The app: answers each of `n` requests, on as many connections as the proxy makes, one after the other. */
static void serve(struct fixture *f, int n)
{
	for (int i = 0; i < n; i++) {
		int fd = accept_app(f);
		app_answers(fd, "awake");
		close(fd);
	}
}

/* Battery I4: many requests, one wake, all answered. */
static void many_requests_one_wake(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int fd[CLIENTS];

	asleep(f);
	for (int i = 0; i < CLIENTS; i++) {
		fd[i] = dial(f->port);
		program_asks(fd[i], "");
	}
	hear_wake(f->control);
	hear_held(f->control, CLIENTS);
	no_wake(f);
	close(fd[7]); /* leaves: it is not sent to the app */
	hear_held(f->control, CLIENTS - 1);
	assert_true(silent(fd[0], 0));

	route_app(f->control, "a.test", 1, f->app_port);
	pid_t spawner = fork();
	if (spawner == 0)
		for (;;)
			spawn_sockets(f->spawner, "app-1-1");
	serve(f, CLIENTS - 1);
	for (int i = 0; i < CLIENTS; i++) {
		if (i == 7)
			continue;
		read_until(fd[i], "awake", &b);
		close(fd[i]);
	}
	kill(spawner, SIGKILL);
	waitpid(spawner, NULL, 0);
	assert_true(silent(f->app, 0));
}

/* Asleep, awake, asleep: each time it is asked. */
static void asks_at_each_sleep(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;

	asleep(f);
	for (int i = 0; i < 3; i++) {
		int client = dial(f->port);
		program_asks(client, "");
		hear_wake(f->control);
		route_page(f->control, "a.test", 200, false);
		read_until(client, "}\n", &b);
		route_hold(f->control, "It slept.");
		no_wake(f);
		close(client);
	}
}

static void a_new_control_is_asked_again(void **state)
{
	struct fixture *f = *state;
	int client = dial(f->port);

	asleep(f);
	program_asks(client, "");
	hear_wake(f->control);
	close(f->control);
	new_control(f);
	/* In the same snapshot that says so: still asleep. */
	reset(f->control);
	route_hold(f->control, "It slept.");
	send_commit(f->control);
	hear_wake(f->control);
	close(client);
}

static void deadline_by_kind(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int browser = dial(f->port), program = dial(f->port), hasty = dial(f->port);

	asleep(f);
	program_asks(program, "");
	program_asks(hasty, "X-Scale-Up-Timeout: 0\r\n");
	ask(browser, "a.test");
	read_until(hasty, "}\n", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	assert_non_null(strstr(b.data, "application/json"));
	read_until(browser, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	assert_non_null(strstr(b.data, "X-Spaced-Hold: "));
	assert_non_null(strstr(b.data, "Waking up"));
	assert_non_null(strstr(b.data, "It slept."));
	assert_non_null(strstr(b.data, "alice/one"));
	assert_true(silent(program, 0));
	/* A page in the place of the hold answers it at last. */
	route_page(f->control, "a.test", 503, false);
	read_until(program, "}\n", &b);
	assert_non_null(strstr(b.data, "Building <it>"));
	close(browser);
	close(program);
	close(hasty);
}

static void queue_is_bounded(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int fd[4];

	asleep(f);
	for (int i = 0; i < 3; i++) {
		fd[i] = dial(f->port);
		program_asks(fd[i], "");
	}
	hear_wake(f->control);
	hear_held(f->control, 3);
	fd[3] = dial(f->port);
	program_asks(fd[3], "");
	read_until(fd[3], "}\n", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(b.data, "Retry-After: "));
	/* One that leaves makes room. */
	close(fd[0]);
	hear_held(f->control, 2);
	program_asks(fd[3], "");
	hear_held(f->control, 3);
	for (int i = 1; i < 4; i++) {
		assert_true(silent(fd[i], 0));
		close(fd[i]);
	}
}

static void a_body_stays_with_its_client(void **state)
{
	struct fixture *f = *state;
	static char piece[1 << 16];
	int client = dial(f->port), small = 4096;
	size_t sent = 0, all = 32U << 20;
	char head[200];

	asleep(f);
	setsockopt(client, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %zu\r\n\r\n", all);
	assert_int_equal(write(client, head, strlen(head)), (ssize_t)strlen(head));
	hear_wake(f->control);
	struct pollfd p = {.fd = client, .events = POLLOUT};
	while (sent < all && poll(&p, 1, 300) == 1) {
		ssize_t n = send(client, piece, sizeof piece, MSG_DONTWAIT);
		assert_true(n > 0 || errno == EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
	}
	assert_true(sent < 16U << 20); /* what the kernel's buffers take, and one block */

	route_app(f->control, "a.test", 1, f->app_port);
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	size_t got = 0;
	while (got < all) {
		ssize_t n = recv(app, piece, sizeof piece, MSG_DONTWAIT);
		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
		got += n > 0 ? (size_t)n : 0;
		if (sent < all) {
			size_t left = all - sent < sizeof piece ? all - sent : sizeof piece;
			ssize_t m = send(client, piece, left, MSG_DONTWAIT);
			sent += m > 0 ? (size_t)m : 0;
		}
		struct pollfd either[] = {{.fd = app, .events = POLLIN}, {.fd = client, .events = POLLOUT}};
		if (n < 0)
			poll(either, sent < all ? 2 : 1, 1000);
	}
	close(app);
	close(client);
}

static uint32_t quieted(struct fixture *f, uint32_t serial)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct frame frame;

	put_str(&b, "app-1-1");
	put_u32(&b, 1);
	put_u32(&b, serial);
	say(f->control, PROXY_QUIET, &b, -1);
	hear(f->control, PROXY_QUIETED, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	assert_int_equal(get_u32(&r), serial);
	uint32_t n = get_u32(&r);
	assert_true(get_ok(&r));
	frame_release(&frame);
	return n;
}

/* Rule 11 and battery I3: before an app is frozen its connections are closed, and nothing is in flight. */
static void quiet_closes_and_counts(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port), late = dial(f->port);
	char c;

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	route_hold(f->control, "");
	assert_int_equal(quieted(f, 1), 1); /* in flight: it must not be frozen */
	route_app(f->control, "a.test", 1, f->app_port);
	app_answers(app, "done");
	read_until(client, "done", &b);

	route_hold(f->control, "");
	assert_int_equal(quieted(f, 2), 0);
	wait_readable(app);
	assert_int_equal(read(app, &c, 1), 0); /* closed, not pooled */
	close(app);
	/* What comes now is held, and goes to the same instance when it is back. */
	program_asks(late, "");
	hear_wake(f->control);
	assert_true(silent(f->app, 100));
	route_app(f->control, "a.test", 1, f->app_port);
	spawn_sockets(f->spawner, "app-1-1");
	app = accept_app(f);
	app_answers(app, "thawed");
	read_until(late, "thawed", &b);
	close(app);
	close(client);
	close(late);
}

/* A wake that control could not follow must not be the last: whoever comes to an empty queue asks. */
static void an_empty_queue_remembers_nothing(void **state)
{
	struct fixture *f = *state;

	asleep(f);
	for (int i = 0; i < 2; i++) {
		int client = dial(f->port);
		program_asks(client, "");
		hear_wake(f->control);
		close(client);
		hear_held(f->control, 0); /* its leaving has been seen */
	}
}

#define SPACE_ID "0123456789abcdef01234567"

static void route_gated(int control, enum route_kind kind, uint16_t port)
{
	struct route r = {.kind = kind,
			  .host = "a.test",
			  .space = "alice/one",
			  .space_id = SPACE_ID,
			  .endpoints = {{.name = "app-1-1", .generation = 1}},
			  .nendpoints = kind == ROUTE_APP,
			  .port = port,
			  .gated = true};

	send_route(control, &r);
}

/* Control is asked about a token while the app falls asleep: that request is one of those that wait. */
static void asleep_while_the_gate_asks(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int client = dial(f->port);

	reset(f->control);
	route_gated(f->control, ROUTE_APP, f->app_port);
	commit(f->control);
	program_asks(client, "Authorization: Bearer good\r\n");
	uint32_t question = hear_question(f->control);
	route_gated(f->control, ROUTE_HOLD, 0);
	answer_question(f->control, question, VERDICT_ENTER);
	hear_wake(f->control);
	assert_true(silent(client, 300));
	route_gated(f->control, ROUTE_APP, f->app_port);
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	app_answers(app, "thawed");
	read_until(client, "thawed", &b);
	close(app);
	close(client);
}

/* Whether it waits for the app, and has not got an answer. */
static bool held(struct fixture *f, int client)
{
	struct pollfd p[] = {{.fd = f->control, .events = POLLIN}, {.fd = client, .events = POLLIN}};
	struct frame frame;

	for (uint32_t type = PROXY_ACTIVITY; type == PROXY_ACTIVITY;) {
		assert_true(poll(p, 2, PATIENCE_MS) > 0);
		if (p[1].revents)
			return false;
		assert_int_equal(frame_recv(f->control, &frame), 1);
		type = frame.type;
		frame_release(&frame);
		assert_true(type == PROXY_ACTIVITY || type == PROXY_WAKE);
	}
	return true;
}

/* Whether the app gets the request, and the proxy has not given up before. */
static bool served(struct fixture *f, int client)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
	struct pollfd p[] = {{.fd = f->app, .events = POLLIN}, {.fd = client, .events = POLLIN}};
	cleanup_buf struct buf b = BUF_INIT;
	char head[4096];

	assert_true(poll(p, 2, PATIENCE_MS) > 0);
	if (!p[0].revents)
		return false;
	int app = accept_app(f);
	wait_readable(app);
	bool asked = read(app, head, sizeof head) > 0;
	if (asked) {
		assert_int_equal(write(app, answer, sizeof answer - 1), sizeof answer - 1);
		read_until(client, "HTTP/1.1 200 ", &b);
	}
	close(app);
	return asked;
}

/* The time for control's answer is over with it: who waits for the app then has a hold's time, not what is left of that. */
static bool is_held_for_longer(struct fixture *f)
{
	int client = dial(f->port);

	reset(f->control);
	route_gated(f->control, ROUTE_HOLD, 0);
	commit(f->control);
	program_asks(client, "Authorization: Bearer good\r\n");
	answer_question(f->control, hear_question(f->control), VERDICT_ENTER);
	bool in_time = held(f, client);
	if (in_time) {
		assert_true(silent(client, (int)rig_limits.connect_ms + 1000));
		route_gated(f->control, ROUTE_APP, f->app_port);
		spawn_sockets(f->spawner, "app-1-1");
		in_time = served(f, client);
	}
	close(client);
	return in_time;
}

static void held_for_longer_than_the_gate_may_ask(void **state)
{
	catch_moment(state, is_held_for_longer);
}

/* At an upgrade of a slow machine the next spawner may come later than any app may take to accept a connection. From then on there
 * is as much time again. */
static bool waits_for_a_spawner(struct fixture *f)
{
	int client = dial(f->port), pair[2];

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	close(f->spawner);
	ask(client, "a.test");
	assert_true(silent(client, (int)rig_limits.connect_ms * 2 - 200));
	assert_int_equal(frame_pair(pair), 0);
	say(f->control, PROXY_SPAWNER, NULL, pair[1]);
	close(pair[1]);
	f->spawner = pair[0];
	bool in_time = silent(client, (int)rig_limits.connect_ms - 600);
	if (in_time) {
		spawn_sockets(f->spawner, "app-1-1");
		in_time = served(f, client);
	}
	close(client);
	return in_time;
}

static void waits_for_the_next_spawner(void **state)
{
	catch_moment(state, waits_for_a_spawner);
}

/* So it is with control, when it is to say who may enter. */
static bool waits_for_a_control(struct fixture *f)
{
	int client = dial(f->port);

	reset(f->control);
	route_gated(f->control, ROUTE_HOLD, 0);
	commit(f->control);
	close(f->control);
	program_asks(client, "Authorization: Bearer good\r\n");
	assert_true(silent(client, (int)rig_limits.connect_ms * 2 - 200));
	new_control(f);
	uint32_t question = hear_question(f->control);
	bool in_time = silent(client, (int)rig_limits.connect_ms - 600);
	if (in_time) {
		answer_question(f->control, question, VERDICT_ENTER);
		in_time = held(f, client);
	}
	close(client);
	return in_time;
}

static void waits_for_the_next_control(void **state)
{
	catch_moment(state, waits_for_a_control);
}

/* For longer than anybody here waits. */
static void stand_still(struct fixture *f)
{
	int status;

	assert_int_equal(kill(f->pid, SIGSTOP), 0);
	assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid);
	assert_true(WIFSTOPPED(status));
	usleep((rig_limits.connect_ms + 1000) * 1000);
}

/* The sockets came while it stood still: nobody was refused one. */
static bool hears_a_spawner_late(struct fixture *f)
{
	int client = ask_app(f);

	wait_readable(f->spawner);
	stand_still(f);
	spawn_sockets(f->spawner, "app-1-1");
	kill(f->pid, SIGCONT);
	bool in_time = served(f, client);
	close(client);
	return in_time;
}

static void what_the_spawner_gave_while_it_stood_still(void **state)
{
	catch_moment(state, hears_a_spawner_late);
}

/* The app came meanwhile: no page says that it is starting. */
static bool hears_a_route_late(struct fixture *f)
{
	int client = dial(f->port);

	asleep(f);
	ask(client, "a.test");
	bool in_time = held(f, client);
	if (in_time) {
		stand_still(f);
		route_app(f->control, "a.test", 1, f->app_port);
		kill(f->pid, SIGCONT);
		struct pollfd p[] = {{.fd = f->spawner, .events = POLLIN}, {.fd = client, .events = POLLIN}};
		assert_true(poll(p, 2, PATIENCE_MS) > 0);
		in_time = p[0].revents;
	}
	if (in_time) {
		spawn_sockets(f->spawner, "app-1-1");
		in_time = served(f, client);
	}
	close(client);
	return in_time;
}

static void what_control_said_while_it_stood_still(void **state)
{
	catch_moment(state, hears_a_route_late);
}

#define VISITS 10000
#define REPORTS 4 /* that are due while control hangs */

/* Requests that the proxy has counted, of a PROXY_ACTIVITY. */
static uint64_t requests_of(const struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	struct counters some;
	uint64_t sum = 0;
	char space[200];

	for (uint32_t n = get_u32(&r); n; n--) {
		assert_true(get_str(&r, space, sizeof space));
		counters_get(&r, &some);
		sum += some.n[COUNT_REQUESTS];
	}
	assert_true(get_ok(&r));
	return sum;
}

/* Each is refused, and asks to wake the app: nobody waits, so that it is not known to be asked. */
static void visit(int client)
{
	cleanup_buf struct buf b = BUF_INIT;

	ask(client, "a.test");
	read_until(client, "</html>", &b);
	assert_non_null(strstr(b.data, "HTTP/1.1 503 "));
}

/* A control that hangs is asked and told no more than so much; then it hears everything that was counted. */
static void what_control_does_not_hear_is_bounded(void **state)
{
	struct fixture *f = *state;
	uint64_t visits = VISITS, heard = 0, reports = 0, wakes = 0;
	int client = dial(f->port);
	struct frame frame;

	uint64_t began = io_now_ms();
	asleep(f);
	for (int i = 0; i < VISITS; i++)
		visit(client);
	uint64_t full = io_now_ms();
	for (; io_now_ms() < full + 1000 * REPORTS; poll(NULL, 0, 50), visits++)
		visit(client);
	uint64_t listens = io_now_ms();
	while (heard < visits) {
		wait_readable(f->control);
		assert_int_equal(frame_recv(f->control, &frame), 1);
		wakes += frame.type == PROXY_WAKE;
		reports += frame.type == PROXY_ACTIVITY;
		heard += frame.type == PROXY_ACTIVITY ? requests_of(&frame) : 0;
		frame_release(&frame);
	}
	assert_int_equal(heard, visits);
	assert_in_range(wakes, 1, VISITS * 3 / 4);
	assert_in_range(reports, 1, 2 + (full - began + io_now_ms() - listens) / 1000);
	visit(client);
	hear_wake(f->control);
	close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(many_requests_one_wake),	TEST(asks_at_each_sleep),      TEST(a_new_control_is_asked_again),
	    TEST(a_body_stays_with_its_client), TEST(quiet_closes_and_counts), TEST(an_empty_queue_remembers_nothing),
	    TEST(asleep_while_the_gate_asks),
	};
	const struct CMUnitTest by_kind[] = {TEST(deadline_by_kind)};
	const struct CMUnitTest bounded[] = {TEST(queue_is_bounded)};
	const struct CMUnitTest hasty[] = {TEST(held_for_longer_than_the_gate_may_ask),
					   TEST(waits_for_the_next_spawner), TEST(waits_for_the_next_control),
					   TEST(what_the_spawner_gave_while_it_stood_still),
					   TEST(what_control_said_while_it_stood_still)};
	const struct CMUnitTest deaf[] = {TEST(what_control_does_not_hear_is_bounded)};

	signal(SIGPIPE, SIG_IGN);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	rig_limits.hold_page_ms = 1500;
	failed += cmocka_run_group_tests(by_kind, NULL, NULL);
	rig_limits.hold_requests = 3;
	failed += cmocka_run_group_tests(bounded, NULL, NULL);
	rig_limits.connect_ms = 1500;
	failed += cmocka_run_group_tests(hasty, NULL, NULL);
	rig_limits.hold_bytes = 1;
	return failed + cmocka_run_group_tests(deaf, NULL, NULL);
}
