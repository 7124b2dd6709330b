/* The life of sandboxes over the spawner's channel: start, sockets, limits, stop; and that what runs survives the death of
 * the spawner and of its own monitor. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/pidfd.h>

#include "base/cleanup.h"
#include "sandbox/listeners.h"
#include "sandbox/netns.h"
#include "spawner_helper.h"

static char *server[] = {"/usr/bin/python3", "-m", "http.server", "7860", NULL};

static void forget(const char *name)
{
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

static void test_true(void **unused)
{
	char *argv[] = {"true", NULL};
	char *missing[] = {"/no/such/program", NULL};
	char *failing[] = {"/bin/sh", "-c", "echo out; echo err >&2; echo again >/dev/stdout; exit 7", NULL};
	char *killed[] = {"/bin/sh", "-c", "kill -USR1 $$", NULL};
	struct sandbox_spec s = spec_of("app-1-1", argv);

	need_root();
	assert_int_equal(start(&s), 0);
	struct sandbox_exit e = wait_exit("app-1-1");
	assert_int_equal(e.status, 0);
	assert_string_equal(e.reason, "exit code 0");
	assert_int_equal(listed("app-1-1"), 0);
	assert_int_equal(start(&s), EEXIST); /* until it is forgotten */
	forget("app-1-1");
	assert_int_equal(listed("app-1-1"), -1);

	s = spec_of("app-1-1", missing);
	assert_int_equal(start(&s), ENOENT);
	assert_int_equal(listed("app-1-1"), -1);
	s = spec_of("app-1-1", failing);
	assert_int_equal(start(&s), 0);
	e = wait_exit("app-1-1");
	assert_string_equal(e.reason, "exit code 7");
	cleanup_free char *text = log_text("app-1-1");
	assert_string_equal(text, "out\nerr\nagain\n");
	forget("app-1-1");
	s = spec_of("app-1-1", killed);
	assert_int_equal(start(&s), 0);
	e = wait_exit("app-1-1");
	assert_int_equal(e.status, 128 + SIGUSR1);
	assert_false(e.oom || e.timeout || e.stopped);
	forget("app-1-1");
}

static void test_host_paths_are_refused(void **unused)
{
	char *argv[] = {"true", NULL};
	struct sandbox_spec s = spec_of("app-1-2", argv);

	need_root();
	s.binds[0] = (struct sandbox_bind){.source = "/etc", .target = "/data"};
	s.nbinds = 1;
	assert_int_equal(start(&s), EPERM);
	s.nbinds = 0;
	s.base = "debian";
	assert_int_equal(start(&s), ENOENT);
	s.base = "debian-20260101000000";
	assert_int_equal(start(&s), ENOENT);
	s.base = NULL;
	s.layers[0] = "base-0123456789abcdef";
	s.nlayers = 1;
	assert_int_equal(start(&s), EPERM);
}

static int open_on(int sock, const char *name, uint32_t n, struct frame *f)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u32(&b, n);
	assert_int_equal(frame_send(sock, SPAWN_OPEN, 77, b.data, b.len, NULL, 0), 0);
	assert_true(next_frame(sock, f, DEADLINE_MS));
	assert_int_equal(f->id, 77); /* NOLINT(clang-analyzer-core.CallAndMessage): set when next_frame() is true */
	return f->type == SPAWN_OK ? 0 : -1;
}

static bool connect_fd(int fd)
{
	struct sockaddr_in a = {
	    .sin_family = AF_INET, .sin_port = htons(7860), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct pollfd p = {fd, POLLOUT, 0};
	int e = 0;
	socklen_t len = sizeof e;

	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS)
		return false;
	return poll(&p, 1, DEADLINE_MS) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 && e == 0;
}

/* True when the app answers a request by way of a passed socket. */
static bool answers(const char *name)
{
	static const char get[] = "GET / HTTP/1.0\r\n\r\n";
	uint64_t end = io_now_ms() + DEADLINE_MS;
	char got[16] = "";

	while (io_now_ms() < end) {
		struct frame f;
		assert_int_equal(open_on(control, name, 1, &f), 0);
		cleanup_close int fd = frame_take_fd(&f, 0);
		frame_release(&f);
		if (!connect_fd(fd)) {
			poll(NULL, 0, 20);
			continue;
		}
		io_set_nonblock(fd, false);
		return io_write_full(fd, get, sizeof get - 1) == 0 && io_read_full(fd, got, 12) == 0 &&
		       strcmp(got + 8, " 200") == 0;
	}
	return false;
}

/* Below those of Spaces are the host's own users, above those of the sandboxes that are made ahead; half a range off, two Spaces
 * would share ids. */
static void test_ranges_of_ids(void **unused)
{
	static char *true_argv[] = {"true", NULL};
	struct sandbox_spec s = spec_of("range-1-1", true_argv);
	const uint32_t wrong[] = {0,
				  65536,
				  ID_BASE - SANDBOX_IDS,
				  ID_BASE - 1,
				  ID_BASE + 1,
				  ID_BASE + SANDBOX_IDS / 2,
				  ID_BASE + SHELL_IDS_FROM * SANDBOX_IDS};

	need_root();
	for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
		s.id_base = wrong[k];
		assert_int_equal(start(&s), EPERM);
		assert_int_equal(listed("range-1-1"), -1);
	}
	s.id_base = ID_BASE + 7 * SANDBOX_IDS;
	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit("range-1-1").status, 0);
}

/* Who listens is found in the beginning of a table that is longer than what is read of it. */
static void test_listeners_beside_many_connections(void **unused)
{
	enum { CONNECTIONS = 400 };
	cleanup_buf struct buf b = BUF_INIT;
	struct err err;
	int ready[2] = {-1, -1};
	char byte;

	need_root();
	cleanup_close int netns = netns_make(&err);
	assert_true(netns >= 0 && pipe(ready) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct sockaddr_in a = {
		    .sin_family = AF_INET, .sin_port = htons(7860), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int listener = setns(netns, CLONE_NEWNET) < 0 ? -1 : socket(AF_INET, SOCK_STREAM, 0);
		bool ok =
		    listener >= 0 && bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 16) == 0;

		for (int k = 0; ok && k < CONNECTIONS; k++) {
			int fd = socket(AF_INET, SOCK_STREAM, 0);
			ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && accept(listener, NULL, NULL) >= 0;
		}
		if (ok && write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(listeners_of(pid, &b), 1);
	struct reader r = reader_of(b.data, b.len);
	char addr[80];
	assert_true(get_str(&r, addr, sizeof addr) && get_ok(&r));
	assert_string_equal(addr, "127.0.0.1:7860");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
}

static void test_server(void **unused)
{
	struct sandbox_spec s = spec_of("app-2-1", server);
	struct frame f;
	char addr[80];

	need_root();
	assert_int_equal(start(&s), 0);
	assert_true(answers("app-2-1"));
	assert_int_equal(listed("app-2-1"), 1);
	assert_int_equal(call_name(SPAWN_LISTENERS, "app-2-1", &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	assert_int_equal(get_u32(&r), 1);
	get_str(&r, addr, sizeof addr);
	assert_true(get_ok(&r));
	assert_string_equal(addr, "0.0.0.0:7860");
	frame_release(&f);

	assert_int_equal(call_name(SPAWN_STATS, "app-2-1", &f), 0);
	r = reader_of(f.payload, f.len);
	assert_true(get_u64(&r) > 1 << 20);
	assert_true(get_u64(&r) > 0);
	assert_true(get_u32(&r) >= 2);
	assert_int_equal(get_u64(&r), 256 << 20);
	assert_true(get_u64(&r) > 1 << 20);
	for (int k = 0; k < 2; k++)
		get_u64(&r);
	for (int k = 0; k < 2; k++)
		get_u32(&r);
	for (int k = 0; k < 8; k++)
		get_u64(&r);
	assert_int_equal(get_u64(&r), 0); /* nothing came from the Internet, nothing went there */
	assert_int_equal(get_u64(&r), 0);
	char group[300], ours[64];
	snprintf(ours, sizeof ours, "/spaced-%s/", tag);
	assert_true(get_str(&r, group, sizeof group));
	if (cgroup_host()->kind != CGROUP_NONE) { /* its own, or that of the sandbox that was made ahead of it */
		const char *name = strstr(group, ours);
		assert_non_null(name);
		name += strlen(ours);
		assert_true(strcmp(name, "app-2-1") == 0 || strncmp(name, "shell.", 6) == 0);
	}
	assert_true(get_ok(&r));
	frame_release(&f);

	assert_int_equal(call_name(SPAWN_PAGE_OUT, "app-2-1", NULL), ECANCELED); /* it runs */
	assert_int_equal(call_freeze("app-2-1"), 0);
	int paged_out = call_name(SPAWN_PAGE_OUT, "app-2-1", NULL);
	assert_true(paged_out == 0 || paged_out == ENOTSUP || paged_out == ENOSPC);
	assert_int_equal(call_name(SPAWN_THAW, "app-2-1", NULL), 0);
	assert_true(answers("app-2-1"));
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-1", NULL), EBUSY);
	assert_int_equal(call_freeze("app-2-1"), 0);
	assert_int_equal(call_stop("app-2-1", 5000), 0); /* also a frozen one ends by itself */
	struct sandbox_exit e = wait_exit("app-2-1");
	assert_true(e.stopped);
	assert_int_equal(call_stop("app-2-1", 0), 0);
	assert_int_equal(call_stop("app-2-none", 0), ENOENT);
	forget("app-2-1");
}

/* Ignores SIGTERM, and its children too. */
static void test_stop_means_stop(void **unused)
{
	char *argv[] = {"/bin/sh", "-c",
			"trap '' TERM; (setsid sleep 1000 &) ; echo ready; while :; do sleep 1000; done", NULL};
	struct sandbox_spec s = spec_of("app-3-1", argv);

	need_root();
	assert_int_equal(start(&s), 0);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	free(log_text("app-3-1"));
	while (!lines_with(log_path, "ready") && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_int_equal(call_stop("app-3-1", 300), 0);
	assert_true(eventually_zero(processes)); /* the monitor goes last */
	assert_int_equal(wait_exit("app-3-1").status, 128 + SIGKILL);
	forget("app-3-1");
}

static void test_reasons(void **unused)
{
	char *hog[] = {"/usr/bin/python3", "-c", "x = bytearray(1 << 30)", NULL};
	char *sleeper[] = {"/bin/sh", "-c", "sleep 1000", NULL};
	char *loud[] = {"/bin/sh", "-c", "dd if=/dev/zero bs=1000 count=100 2>/dev/null", NULL};
	struct sandbox_spec s = spec_of("app-4-1", hog);

	need_root();
	s.limits.memory = 64 << 20;
	assert_int_equal(start(&s), 0);
	struct sandbox_exit e = wait_exit("app-4-1");
	assert_string_equal(e.reason, "killed: used 64 MiB of 64 MiB");
	assert_true(e.oom);

	s = spec_of("app-4-2", sleeper);
	s.limits.timeout_s = 1;
	assert_int_equal(start(&s), 0);
	e = wait_exit("app-4-2");
	assert_string_equal(e.reason, "timeout");
	assert_true(e.timeout && !e.stopped);

	s = spec_of("app-4-3", loud);
	s.limits.log_bytes = 10000;
	assert_int_equal(start(&s), 0);
	e = wait_exit("app-4-3");
	assert_int_equal(e.log_dropped, 90000);
	free(log_text("app-4-3"));
	assert_int_equal(lines_with(log_path, "dropped because the log was full: 90000 bytes"), 1);
	forget("app-4-1");
	forget("app-4-2");
	forget("app-4-3");
}

static void test_spawner_is_killed(void **unused)
{
	char *late[] = {"/bin/sh", "-c", "read x; exit 9", NULL};
	struct sandbox_spec s = spec_of("app-5-1", server);
	int in[2];

	need_root();
	assert_int_equal(start(&s), 0);
	assert_true(answers("app-5-1"));
	/* one that ends while no spawner is there */
	s = spec_of("app-5-2", late);
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_close int log = open("/dev/null", O_WRONLY);
	assert_int_equal(pipe(in), 0);
	sandbox_spec_encode(&s, &b);
	put_u8(&b, 1);
	put_u8(&b, 0);
	assert_int_equal(answer(request(SPAWN_START, &b, (int[]){log, in[0]}, 2), NULL), 0);
	close(in[0]);

	spawner_down(SIGKILL);
	close(in[1]);
	spawner_up();
	assert_true(answers("app-5-1"));
	assert_int_equal(listed("app-5-1"), 1);
	if (listed("app-5-2") != 0)
		assert_int_equal(wait_exit("app-5-2").status, 9);
	assert_int_equal(listed("app-5-2"), 0);
	assert_int_equal(call_stop("app-5-1", 1000), 0);
	forget("app-5-1");
	forget("app-5-2");
}

/* The monitor of a sandbox, by the log that it holds open: that of an earlier one may not have ended yet. 0: there is none. */
static pid_t monitor_of(const char *name)
{
	/* without the prefix, which is missing where /tmp is a mount */
	cleanup_free char *log = xasprintf("%s/%s.log", strrchr(state, '/'), name);
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		char path[300];
		char link[200];
		snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || !lines_with(path, "spaced-monitor"))
			continue;
		for (int fd = 3; fd < 12; fd++) {
			snprintf(path, sizeof path, "/proc/%s/fd/%d", e->d_name, fd);
			ssize_t k = readlink(path, link, sizeof link - 1);
			link[k > 0 ? k : 0] = '\0';
			if (strstr(link, log))
				return (pid_t)atoi(e->d_name);
		}
	}
	return 0;
}

static void test_monitor_is_killed(void **unused)
{
	struct sandbox_spec s = spec_of("app-6-1", server);

	need_root();
	assert_int_equal(start(&s), 0);
	assert_true(answers("app-6-1"));
	pid_t first = monitor_of("app-6-1");
	assert_true(first > 0);
	kill(first, SIGKILL);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	pid_t second;
	while (((second = monitor_of("app-6-1")) == 0 || second == first) && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_true(second > 0 && second != first);
	assert_true(answers("app-6-1")); /* and its log goes on, else it would die of SIGPIPE */
	assert_true(answers("app-6-1"));

	/* the replacement is taken over as well */
	spawner_down(SIGKILL);
	spawner_up();
	assert_true(answers("app-6-1"));
	free(log_text("app-6-1"));
	end = io_now_ms() + DEADLINE_MS;
	while (lines_with(log_path, "GET /") < 4 && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_true(lines_with(log_path, "GET /") >= 4);

	/* both die: the sandbox is ended, and that is told */
	end = io_now_ms() + DEADLINE_MS;
	spawner_down(SIGKILL);
	pid_t last = monitor_of("app-6-1");
	assert_true(last > 0);
	kill(last, SIGKILL);
	while (monitor_of("app-6-1") && io_now_ms() < end)
		poll(NULL, 0, 10);
	spawner_up();
	assert_string_equal(wait_exit("app-6-1").reason, "lost: its supervision was killed");
	forget("app-6-1");
}

static void test_monitor_has_no_privilege(void **unused)
{
	struct sandbox_spec s = spec_of("app-7-1", server);
	char path[64];

	need_root();
	assert_int_equal(start(&s), 0);
	snprintf(path, sizeof path, "/proc/%d/status", (int)monitor_of("app-7-1"));
	uint64_t end = io_now_ms() + DEADLINE_MS;
	while (!lines_with(path, "Seccomp:\t2") && io_now_ms() < end) /* the filter comes right after the start */
		poll(NULL, 0, 10);
	assert_int_equal(lines_with(path, "Uid:\t65534\t65534\t65534\t65534"), 1);
	assert_int_equal(lines_with(path, "CapPrm:\t0000000000000000"), 1);
	assert_int_equal(lines_with(path, "NoNewPrivs:\t1"), 1);
	assert_int_equal(lines_with(path, "Seccomp:\t2"), 1);
	assert_int_equal(call_stop("app-7-1", 0), 0);
	forget("app-7-1");
}

static void test_proxy_channel(void **unused)
{
	cleanup_buf struct buf none = BUF_INIT;
	struct sandbox_spec s = spec_of("app-8-1", server);
	struct frame f;
	int sv[2];

	need_root();
	assert_int_equal(start(&s), 0);
	assert_int_equal(frame_pair(sv), 0);
	assert_int_equal(answer(request(SPAWN_PEER, &none, &sv[1], 1), NULL), 0);
	close(sv[1]);
	assert_int_equal(open_on(sv[0], "app-8-1", 16, &f), 0);
	assert_int_equal(f.nfds, 16);
	frame_release(&f);
	assert_int_equal(open_on(sv[0], "app-8-none", 1, &f), -1); /* an error, not the end */
	frame_release(&f);
	assert_int_equal(frame_send(sv[0], SPAWN_LIST, 5, NULL, 0, NULL, 0), 0);
	struct pollfd p = {sv[0], POLLIN, 0};
	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	assert_int_equal(frame_recv(sv[0], &f), 0); /* any other verb is */
	close(sv[0]);
	assert_int_equal(call_stop("app-8-1", 0), 0);
	forget("app-8-1");
}

static void test_nothing_left(void **unused)
{
	need_root();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_true),
	    cmocka_unit_test(test_host_paths_are_refused),
	    cmocka_unit_test(test_ranges_of_ids),
	    cmocka_unit_test(test_listeners_beside_many_connections),
	    cmocka_unit_test(test_server),
	    cmocka_unit_test(test_stop_means_stop),
	    cmocka_unit_test(test_reasons),
	    cmocka_unit_test(test_spawner_is_killed),
	    cmocka_unit_test(test_monitor_is_killed),
	    cmocka_unit_test(test_monitor_has_no_privilege),
	    cmocka_unit_test(test_proxy_channel),
	    cmocka_unit_test(test_nothing_left),
	};
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
