/* A whole proxy process as the daemon runs it: the test is its parent, its control and its spawner, and the apps. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/frame.h"
#include "base/log.h"
#include "proxy/proxy.h"
#include "proxy/route.h"
#include "sandbox/spawner.h"

#define PATIENCE_MS 20000

struct fixture {
	pid_t pid;
	int control, parent, spawner;
	uint16_t port, app_port;
	int app; /* listening */
};

static int listen_any(uint16_t *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	assert_int_equal(listen(fd, 64), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	*port = ntohs(sa.sin_port);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	int control[2], parent[2], spawner[2];
	int listener = listen_any(&f->port);

	f->app = listen_any(&f->app_port);
	assert_int_equal(frame_pair(control), 0);
	assert_int_equal(frame_pair(parent), 0);
	assert_int_equal(frame_pair(spawner), 0);
	f->pid = fork();
	if (f->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(control[0]);
		close(parent[0]);
		close(spawner[0]);
		close(f->app);
		log_init("proxy", LOG_LEVEL_ERROR);
		struct proxy_config config = {.listeners = &listener,
					      .nlisteners = 1,
					      .control = control[1],
					      .parent = parent[1],
					      .spawner = spawner[1]};
		_exit(proxy_main(&config));
	}
	close(control[1]);
	close(parent[1]);
	close(spawner[1]);
	close(listener);
	f->control = control[0];
	f->parent = parent[0];
	f->spawner = spawner[0];
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	kill(f->pid, SIGKILL);
	waitpid(f->pid, &status, 0);
	close(f->control);
	close(f->parent);
	close(f->spawner);
	close(f->app);
	free(f);
	return 0;
}

static void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

static void say(int sock, uint32_t type, const struct buf *b, int fd)
{
	assert_int_equal(frame_send(sock, type, 0, b ? b->data : NULL, b ? b->len : 0, &fd, fd >= 0), 0);
}

/* The next frame of `type`; activity in between is skipped. */
static void hear(int sock, uint32_t type, struct frame *f)
{
	for (;;) {
		wait_readable(sock);
		assert_int_equal(frame_recv(sock, f), 1);
		if (f->type == type)
			return;
		assert_int_equal(f->type, PROXY_ACTIVITY);
		frame_release(f);
	}
}

static void reset(int control)
{
	cleanup_buf struct buf b = BUF_INIT;
	put_str(&b, "test");
	say(control, PROXY_RESET, &b, -1);
}

static void commit(int control, uint64_t version)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;

	put_u64(&b, version);
	say(control, PROXY_COMMIT, &b, -1);
	hear(control, PROXY_READY, &f);
	struct reader r = reader_of(f.payload, f.len);
	assert_int_equal(get_u64(&r), version);
	frame_release(&f);
}

static void route_app(int control, const char *host, uint32_t generation, uint16_t port)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct route r = {.kind = ROUTE_APP, .generation = generation, .port = port};

	snprintf(r.host, sizeof r.host, "%s", host);
	snprintf(r.instance, sizeof r.instance, "app-1-%u", generation);
	snprintf(r.space, sizeof r.space, "alice/one");
	route_encode(&r, &b);
	say(control, PROXY_ROUTE, &b, -1);
}

static void route_page(int control, const char *host, uint16_t status, bool refresh)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct route r = {.kind = ROUTE_PAGE, .page_status = status, .page_refresh = refresh};

	snprintf(r.host, sizeof r.host, "%s", host);
	r.page_title = (char[]){"Building <it>"};
	r.page_text = (char[]){"Soon.\n\nstep 1 & 2"};
	route_encode(&r, &b);
	say(control, PROXY_ROUTE, &b, -1);
}

/* Answers one SPAWN_OPEN with sockets made here. */
static void spawn_sockets(int spawner, const char *instance)
{
	struct frame f;
	int fds[16];
	char name[81];

	wait_readable(spawner);
	assert_int_equal(frame_recv(spawner, &f), 1);
	assert_int_equal(f.type, SPAWN_OPEN);
	struct reader r = reader_of(f.payload, f.len);
	get_str(&r, name, sizeof name);
	uint32_t n = get_u32(&r);
	assert_true(get_ok(&r) && n >= 1 && n <= 16);
	assert_string_equal(name, instance);
	for (uint32_t i = 0; i < n; i++)
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(frame_send(spawner, SPAWN_OK, f.id, NULL, 0, fds, (int)n), 0);
	for (uint32_t i = 0; i < n; i++)
		close(fds[i]);
	frame_release(&f);
}

static void spawn_error(int spawner, uint32_t code)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;

	wait_readable(spawner);
	assert_int_equal(frame_recv(spawner, &f), 1);
	put_u32(&b, code);
	put_str(&b, "no such sandbox");
	assert_int_equal(frame_send(spawner, SPAWN_ERROR, f.id, b.data, b.len, NULL, 0), 0);
	frame_release(&f);
}

static int dial(uint16_t port)
{
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}

static void ask(int fd, const char *host)
{
	cleanup_buf struct buf b = BUF_INIT;
	buf_addf(&b, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\n\r\n", host);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

/* Reads until `mark` was seen. */
static void read_until(int fd, const char *mark, struct buf *b)
{
	buf_clear(b);
	while (!b->data || !strstr(b->data, mark)) {
		char piece[4096];
		wait_readable(fd);
		ssize_t n = read(fd, piece, sizeof piece);
		if (n <= 0)
			fail_msg("the end came before `%s`: %s", mark, b->data ? b->data : "");
		buf_add(b, piece, (size_t)n);
	}
}

static int accept_app(struct fixture *f)
{
	wait_readable(f->app);
	int fd = accept4(f->app, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void app_answers(int fd, const char *body)
{
	cleanup_buf struct buf b = BUF_INIT;

	read_until(fd, "\r\n\r\n", &b);
	buf_clear(&b);
	buf_addf(&b, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
