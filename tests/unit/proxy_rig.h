/* What tests of a whole proxy process share: the process as the daemon runs it, with the test as its parent, its control, its
 * spawner and the apps. */
#ifndef TESTS_UNIT_PROXY_RIG_H
#define TESTS_UNIT_PROXY_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/frame.h"
#include "base/log.h"
#include "proxy/counters.h"
#include "proxy/gate.h"
#include "proxy/proxy.h"
#include "proxy/route.h"
#include "sandbox/spawner.h"

#define PATIENCE_MS 60000

/* Of the proxies that setup() starts. A time that a test is not about ends nothing in it, however long one of the two processes is kept
 * from the CPU. */
static struct proxy_limits rig_limits = {.head_ms = PATIENCE_MS,
					 .connect_ms = PATIENCE_MS,
					 .pool_ms = PATIENCE_MS,
					 .hold_page_ms = PATIENCE_MS,
					 .drain_ms = PATIENCE_MS};
static uint32_t rig_log_sample;
static rlim_t rig_files; /* descriptors that they may have; 0: as many as this process */

struct fixture {
	pid_t pid; /* 0: it has ended */
	int control, parent, spawner;
	uint16_t port, app_port;
	int app; /* listening */
};

/* A socket at that port of loopback, 0: at any. While it is open no other program gets the port, and until somebody listens there
 * connections are refused. */
static inline int bind_port(uint16_t *port)
{
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	*port = ntohs(sa.sin_port);
	return fd;
}

static inline int listen_port(uint16_t *port)
{
	int fd = bind_port(port);

	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static inline int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	int control[2], parent[2], spawner[2];
	int listener = listen_port(&f->port);

	f->app = listen_port(&f->app_port);
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
		if (rig_files)
			setrlimit(RLIMIT_NOFILE, &(struct rlimit){rig_files, rig_files});
		struct proxy_config config = {.listeners = &listener,
					      .nlisteners = 1,
					      .control = control[1],
					      .parent = parent[1],
					      .spawner = spawner[1],
					      .limits = rig_limits,
					      .log_sample = rig_log_sample};
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

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->pid) {
		kill(f->pid, SIGKILL);
		waitpid(f->pid, NULL, 0);
	}
	close(f->control);
	close(f->parent);
	close(f->spawner);
	close(f->app);
	free(f);
	return 0;
}

#define ATTEMPTS 8 /* a moment is missed by who is kept from the CPU just then: another proxy, another moment */

static inline struct fixture *another(void **state)
{
	teardown(state);
	setup(state);
	return *state;
}

static inline void catch_moment(void **state, bool (*caught)(struct fixture *f))
{
	for (int attempts = 1; !caught(*state); attempts++) {
		assert_true(attempts < ATTEMPTS);
		another(state);
	}
}

/* It ends by itself, and well. */
static inline void wait_end(struct fixture *f)
{
	int status;

	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	f->pid = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

static inline void say(int sock, uint32_t type, const struct buf *b, int fd)
{
	assert_int_equal(frame_send(sock, type, 0, b ? b->data : NULL, b ? b->len : 0, &fd, fd >= 0), 0);
}

/* The next frame of `type`; activity in between is skipped. */
static inline void hear(int sock, uint32_t type, struct frame *f)
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

/* Nothing but activity comes until the other side closes the channel. */
static inline void hear_end(int sock)
{
	struct frame f;

	for (;;) {
		wait_readable(sock);
		int r = frame_recv(sock, &f);
		if (r == 0)
			return;
		assert_int_equal(r, 1);
		assert_int_equal(f.type, PROXY_ACTIVITY);
		frame_release(&f);
	}
}

/* Another control takes the place of the one before, whose end is the caller's to close. */
static inline void new_control(struct fixture *f)
{
	int pair[2];

	assert_int_equal(frame_pair(pair), 0);
	say(f->parent, PROXY_NEW_CONTROL, NULL, pair[1]);
	close(pair[1]);
	f->control = pair[0];
}

/* Somebody waits for alice/one. */
static inline void hear_wake(int control)
{
	struct frame frame;
	char space[200];

	hear(control, PROXY_WAKE, &frame);
	struct reader r = reader_of(frame.payload, frame.len);
	assert_true(get_str(&r, space, sizeof space) && get_ok(&r));
	assert_string_equal(space, "alice/one");
	frame_release(&frame);
}

/* Waits until the proxy says that so many requests wait for an app, for one Space alone; it is to be called behind hear_wake(). */
static inline void hear_held(int control, uint32_t n)
{
	for (uint32_t held = UINT32_MAX; held != n;) {
		struct frame frame;
		struct counters some;
		char space[200];

		hear(control, PROXY_ACTIVITY, &frame);
		struct reader r = reader_of(frame.payload, frame.len);
		for (uint32_t spaces = get_u32(&r); spaces; spaces--) {
			assert_true(get_str(&r, space, sizeof space));
			counters_get(&r, &some);
			if (space[0])
				held = some.now[GAUGE_HELD];
		}
		assert_true(get_ok(&r));
		frame_release(&frame);
	}
}

/* The next question of the gate: hears it; answers it. */
static inline uint32_t hear_question(int control)
{
	struct frame frame;

	hear(control, PROXY_ASK, &frame);
	uint32_t id = frame.id;
	frame_release(&frame);
	return id;
}

#define RIG_USER "aaaaaaaaaaaaaaaaaaaaaaaa" /* whose tokens are */
static inline void answer_question(int control, uint32_t id, enum gate_verdict verdict)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u8(&b, (uint8_t)verdict);
	put_u32(&b, 0);
	put_str(&b, RIG_USER);
	assert_int_equal(frame_send(control, PROXY_VERDICT, id, b.data, b.len, NULL, 0), 0);
}

/* The version that the next frame about routes has, and how many there are (each host said once). */
static struct {
	uint64_t version;
	uint32_t routes;
	bool snapshot;
} said;

static inline void reset(int control)
{
	cleanup_buf struct buf b = BUF_INIT;

	said.version += 100;
	said.routes = 0;
	said.snapshot = true;
	put_u64(&b, said.version);
	put_str(&b, "test");
	say(control, PROXY_RESET, &b, -1);
}

static inline void send_commit(int control)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u64(&b, said.version);
	put_u32(&b, said.routes);
	say(control, PROXY_COMMIT, &b, -1);
	said.snapshot = false;
}

/* The snapshot ends; or all deltas have come. */
static inline void commit(int control)
{
	struct frame f;

	send_commit(control);
	hear(control, PROXY_READY, &f);
	struct reader r = reader_of(f.payload, f.len);
	assert_int_equal(get_u64(&r), said.version);
	frame_release(&f);
}

static inline void send_route(int control, const struct route *r)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (said.snapshot)
		said.routes++;
	else
		said.version++;
	put_u64(&b, said.version);
	route_encode(r, &b);
	say(control, PROXY_ROUTE, &b, -1);
}

static inline void route_app(int control, const char *host, uint32_t generation, uint16_t port)
{
	struct route r = {.kind = ROUTE_APP, .nendpoints = 1, .endpoints[0].generation = generation, .port = port};

	snprintf(r.host, sizeof r.host, "%s", host);
	snprintf(r.endpoints[0].name, sizeof r.endpoints[0].name, "app-1-%u", generation);
	snprintf(r.space, sizeof r.space, "alice/one");
	send_route(control, &r);
}

static inline void route_page(int control, const char *host, uint16_t status, bool refresh)
{
	struct route r = {.kind = ROUTE_PAGE, .page_status = status, .page_refresh = refresh};

	snprintf(r.host, sizeof r.host, "%s", host);
	r.page_title = (char[]){"Building <it>"};
	r.page_text = (char[]){"Soon.\n\nstep 1 & 2"};
	send_route(control, &r);
}

/* Answers one SPAWN_OPEN with sockets made here. */
static inline void spawn_sockets(int spawner, const char *instance)
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

static inline void spawn_error(int spawner, uint32_t code)
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

static inline int dial(uint16_t port)
{
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}

static inline void ask(int fd, const char *host)
{
	cleanup_buf struct buf b = BUF_INIT;
	buf_addf(&b, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\n\r\n", host);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

/* Reads until `mark` was seen. */
static inline void read_until(int fd, const char *mark, struct buf *b)
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

/* A client that has asked for the one app that there is a route to; the spawner is asked for sockets next. */
static inline int ask_app(struct fixture *f)
{
	int client = dial(f->port);

	reset(f->control);
	route_app(f->control, "a.test", 1, f->app_port);
	commit(f->control);
	ask(client, "a.test");
	return client;
}

static inline int accept_app(struct fixture *f)
{
	wait_readable(f->app);
	int fd = accept4(f->app, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static inline void app_answers(int fd, const char *body)
{
	cleanup_buf struct buf b = BUF_INIT;

	read_until(fd, "\r\n\r\n", &b);
	buf_clear(&b);
	buf_addf(&b, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
