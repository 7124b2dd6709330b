/* A proxy process that ends, or makes way for another one: whom it still serves (proxy/drain.c). */
#include "proxy/gate.h"
#include "tests/unit/proxy_rig.h"

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
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(app);
	close(client);
	close(idle);
	close(silent);
	close(queued);
}

/* Who says nothing until its deadline is closed in time, and not cut off. */
static void retires_at_last(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_buf struct buf ms = BUF_INIT;
	int idle = dial(f->port), busy = dial(f->port);
	int status;

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	ask(busy, "a.test");
	spawn_sockets(f->spawner, "app-1-1");
	int app = accept_app(f);
	put_u32(&ms, 2500);
	say(f->parent, PROXY_RETIRE, &ms, -1);
	wait_readable(idle);
	assert_int_equal(read(idle, &(char){0}, 1), 0);
	assert_int_equal(waitpid(f->pid, &status, WNOHANG), 0); /* before the one that is busy is cut */
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(app);
	close(idle);
	close(busy);
}

/* A request that comes on a connection that was kept alive while the worker ends is answered, not cut off. */
static void speaks_while_it_ends(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int idle = dial(f->port);
	int status;

	reset(f->control);
	route_page(f->control, "p.test", 200, false);
	commit(f->control);
	ask(idle, "p.test");
	read_until(idle, "</html>", &b);
	assert_int_equal(kill(f->pid, SIGTERM), 0);
	int probe; /* it has seen the signal when it listens no more */
	while ((probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0) {
		struct sockaddr_in sa = {
		    .sin_family = AF_INET, .sin_port = htons(f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int r = connect(probe, (struct sockaddr *)&sa, sizeof sa);
		close(probe);
		if (r < 0)
			break;
	}
	ask(idle, "p.test");
	read_until(idle, "Connection: close", &b);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
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
	cleanup_buf struct buf verdict = BUF_INIT;
	struct frame frame;
	int first = dial(f->port), second = dial(f->port), pair[2];

	reset(f->control);
	send_route(f->control, &r);
	commit(f->control);
	ask_with_token(first);
	hear(f->control, PROXY_ASK, &frame);
	frame_release(&frame);
	close(f->control);
	ask_with_token(second);
	struct pollfd p = {.fd = first, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 300), 0);
	assert_int_equal(frame_pair(pair), 0);
	say(f->parent, PROXY_NEW_CONTROL, NULL, pair[1]);
	close(pair[1]);
	f->control = pair[0];
	put_u8(&verdict, VERDICT_ENTER);
	put_u32(&verdict, 0);
	for (int i = 0; i < 2; i++) {
		hear(f->control, PROXY_ASK, &frame);
		assert_int_equal(frame_send(f->control, PROXY_VERDICT, frame.id, verdict.data, verdict.len, NULL, 0),
				 0);
		frame_release(&frame);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(retires),
	    TEST(retires_at_last),
	    TEST(speaks_while_it_ends),
	    TEST(a_question_waits_for_the_next_control),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
