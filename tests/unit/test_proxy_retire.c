/* A proxy process that ends, or makes way for another one: whom it still serves (proxy/drain.c). */
#include <sys/un.h>

#include "tests/unit/proxy_rig.h"

#include "base/io.h"

/* Another worker serves the socket now: this one answers all that it has, however late it speaks, and takes nobody new. */
static void retires(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_buf struct buf ms = BUF_INIT;
	struct frame frame;
	int status;

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	hear(f->parent, PROXY_READY, &frame);
	frame_release(&frame);
	int client = dial(f->port), idle = dial(f->port), silent = dial(f->port);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	assert_null(strstr(b.data, "Connection: close"));
	ask(client, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	assert_int_equal(kill(f->pid, SIGSTOP), 0);
	assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid); /* or it might take one more visitor before */
	assert_true(WIFSTOPPED(status));
	int queued = dial(f->port);
	ask(queued, "p.test");
	put_u32(&ms, PATIENCE_MS);
	say(f->parent, PROXY_RETIRE, &ms, -1);
	kill(f->pid, SIGCONT);
	read_until(queued, "</html>", &b);
	assert_non_null(strstr(b.data, "Connection: close"));
	struct pollfd p = {.fd = idle, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 1500), 0); /* kept for longer than at an end */
	app_answers(app, "last");
	read_until(client, "last", &b);
	assert_non_null(strstr(b.data, "Connection: close"));
	ask(silent, "p.test");
	read_until(silent, "Connection: close", &b);
	assert_int_equal(waitpid(f->pid, &status, WNOHANG), 0);
	ask(idle, "p.test");
	read_until(idle, "Connection: close", &b);
	wait_end(f);
	close(app);
	close(client);
	close(idle);
	close(silent);
	close(queued);
}

/* Whether who says nothing is closed while one that is busy is still served; another that is busy is cut at the deadline. */
static bool closes_before_it_cuts(struct fixture *f)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
	cleanup_buf struct buf b = BUF_INIT, ms = BUF_INIT;
	int idle = dial(f->port), busy = dial(f->port), cut = dial(f->port);
	char c;

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	ask(busy, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	read_until(app, "\r\n\r\n", &b);
	ask(cut, "a.test");
	int other = accept_app(f);
	put_u32(&ms, 2500);
	say(f->parent, PROXY_RETIRE, &ms, -1);
	wait_readable(idle);
	assert_int_equal(read(idle, &c, 1), 0);
	bool served = write(app, answer, sizeof answer - 1) == sizeof answer - 1;
	wait_readable(busy);
	served = read(busy, &c, 1) == 1 && served;
	wait_end(f);
	close(app);
	close(other);
	close(idle);
	close(busy);
	close(cut);
	return served;
}

/* Who says nothing until its deadline is closed in time, and not cut off. */
static void retires_at_last(void **state)
{
	catch_moment(state, closes_before_it_cuts);
}

/* A request that comes on a connection that was kept alive while the worker ends is answered, not cut off. */
static void speaks_while_it_ends(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int idle;

	for (int attempts = 1;; attempts++) {
		idle = dial(f->port);
		reset(f->control);
		route_page(f->control, "p.test", 200, false);
		commit(f->control);
		ask(idle, "p.test");
		read_until(idle, "</html>", &b);
		uint64_t began = io_now_ms();
		assert_int_equal(kill(f->pid, SIGTERM), 0);
		int probe; /* it has seen the signal when it listens no more */
		while ((probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0) {
			struct sockaddr_in sa = {.sin_family = AF_INET,
						 .sin_port = htons(f->port),
						 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
			int r = connect(probe, (struct sockaddr *)&sa, sizeof sa);
			close(probe);
			if (r < 0)
				break;
			poll(NULL, 0, 2); /* so that they do not fill the queue: then a connection takes a second */
		}
		ask(idle, "p.test");
		if (io_now_ms() - began < 1000) /* so long it waits for a request */
			break;
		assert_true(attempts < ATTEMPTS);
		close(idle);
		f = another(state);
	}
	read_until(idle, "Connection: close", &b);
	wait_end(f);
	close(idle);
}

static void ask_with_token(int fd)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer good\r\n\r\n";

	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
}

/* Control makes way for another one: who asked the one before, or nobody, is let in by the next. */
static void a_question_waits_for_the_next_control(void **state)
{
	struct fixture *f = *state;
	struct route r = {.kind = ROUTE_APP,
			  .host = "a.test",
			  .space = "alice/one",
			  .space_id = "0123456789abcdef01234567",
			  .endpoints = {{.name = "app-1-1", .generation = 1}},
			  .nendpoints = 1,
			  .port = f->app_port,
			  .gated = true};
	cleanup_buf struct buf b = BUF_INIT;
	int first = dial(f->port), second = dial(f->port);

	reset(f->control);
	send_route(f->control, &r);
	commit(f->control);
	ask_with_token(first);
	hear_question(f->control);
	close(f->control);
	ask_with_token(second);
	struct pollfd p = {.fd = first, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 300), 0);
	new_control(f);
	for (int i = 0; i < 2; i++) {
		answer_question(f->control, hear_question(f->control), VERDICT_ENTER);
		if (i == 0)
			spawn_sockets(f->spawner, "app-1-1");
	}
	int apps[2] = {accept_app(f), accept_app(f)};
	for (int i = 0; i < 2; i++)
		app_answers(apps[i], "entered");
	read_until(first, "entered", &b);
	read_until(second, "entered", &b);
	close(apps[0]);
	close(apps[1]);
	close(first);
	close(second);
}

/* A role's socket, as its own folder and the proxy know it. */
static int listen_unix(char path[32])
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, 32, "/tmp/test-role-%d", (int)getpid());
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int accept_unix(int listener)
{
	wait_readable(listener);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void hear_close(int fd)
{
	char c;

	wait_readable(fd);
	assert_int_equal(read(fd, &c, 1), 0);
}

/* Control makes way for the next one: the connections that are kept to it are closed from this side, where it is known that
 * no request is on its way, and one that is answered now is not kept. */
static void a_role_makes_way(void **state)
{
	struct fixture *f = *state;
	struct route r = {.kind = ROUTE_UNIX, .host = "apex.test", .nendpoints = 1};
	cleanup_buf struct buf b = BUF_INIT, quiet = BUF_INIT;
	struct frame frame;
	char path[32];
	int role = listen_unix(path), first = dial(f->port), second = dial(f->port);

	snprintf(r.endpoints[0].name, sizeof r.endpoints[0].name, "%s", path);
	reset(f->control);
	send_route(f->control, &r);
	commit(f->control);
	ask(first, "apex.test");
	int idle = accept_unix(role);
	ask(second, "apex.test");
	int busy = accept_unix(role);
	app_answers(idle, "one");
	read_until(first, "one", &b);
	put_str(&quiet, path);
	put_u32(&quiet, 0);
	put_u32(&quiet, 0);
	say(f->control, PROXY_QUIET, &quiet, -1);
	hear(f->control, PROXY_QUIETED, &frame);
	frame_release(&frame);
	hear_close(idle);
	app_answers(busy, "two"); /* keep-alive */
	read_until(second, "two", &b);
	ask(second, "apex.test");
	int next = accept_unix(role);
	hear_close(busy);
	app_answers(next, "three");
	read_until(second, "three", &b);
	ask(second, "apex.test");
	app_answers(next, "four"); /* the next one's are kept as ever */
	read_until(second, "four", &b);
	unlink(path);
	close(role);
	close(idle);
	close(busy);
	close(next);
	close(first);
	close(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(retires),
	    TEST(retires_at_last),
	    TEST(speaks_while_it_ends),
	    TEST(a_question_waits_for_the_next_control),
	    TEST(a_role_makes_way),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
