/* Group I: sandboxes that are frozen, by the spawner's own verbs. Whether one is
 * frozen is judged by what it does: its ticker prints, or it does not. `freeze [CASE]`, in cmocka's words; the kind of
 * cgroup is the host's, or forced by SPACED_FORCE. Needs root. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "sandbox/cgroup.h"
#include "tests/unit/spawner_helper.h"

#define STILL_MS 300
#define REQUESTS 1000

#define TICK "import time\nn = 0\nwhile True:\n    print(n, flush=True)\n    n += 1\n    time.sleep(0.01)\n"
static char *ticker[] = {"/usr/bin/python3", "-c", TICK, NULL};

static off_t log_size(const char *name)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof path, "%s/%s.log", state, name);
	return stat(path, &st) < 0 ? 0 : st.st_size;
}

static bool ticks(const char *name)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;
	off_t first = log_size(name);

	while (log_size(name) == first) {
		if (io_now_ms() > end)
			return false;
		poll(NULL, 0, 10);
	}
	return true;
}

/* What was on its way to the log has arrived; then nothing more comes. Its monitor may have been kept from the CPU, and bring the rest
 * once more. */
static bool is_still(const char *name)
{
	for (int looks = 0; looks < 3; looks++) {
		poll(NULL, 0, STILL_MS);
		off_t first = log_size(name);
		poll(NULL, 0, STILL_MS);
		if (log_size(name) == first)
			return true;
	}
	return false;
}

static void begin(const char *name, char **argv, uint32_t pids)
{
	struct sandbox_spec s = spec_of(name, argv);

	need_root();
	if (cgroup_host()->kind == CGROUP_NONE) {
		print_message("# SKIP no cgroups: nothing can be frozen\n");
		skip();
	}
	s.limits.pids = pids;
	s.limits.memory = 1ULL << 30;
	assert_int_equal(start(&s), 0);
}

static void end(const char *name, uint32_t grace)
{
	assert_int_equal(call_stop(name, grace), 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
	assert_true(eventually_zero(processes));
	assert_true(eventually_zero(groups)); /* one that is being made ahead has nobody in it for a moment */
}

static void test_i1(void **unused)
{
	static const uint32_t graces[] = {0, 2000};

	for (size_t i = 0; i < 2; i++) {
		begin("app-1", ticker, 64);
		assert_true(ticks("app-1"));
		assert_int_equal(call_freeze("app-1"), 0);
		assert_true(is_still("app-1"));
		end("app-1", graces[i]);
	}
}

/* Frozen whole, or an error and thawed whole: never in between. Which of the two it was. */
static bool freeze_or_roll_back(const char *name)
{
	bool frozen = call_name(SPAWN_FREEZE, name, NULL) == 0;

	assert_true(frozen ? is_still(name) : ticks(name));
	if (frozen)
		assert_int_equal(call_name(SPAWN_THAW, name, NULL), 0);
	assert_true(ticks(name));
	return frozen;
}

static void test_i2(void **unused)
{
	/* posix_spawn is vfork: the parent waits until its child has opened a fifo that nobody ever writes to */
	static char *waiting[] = {"/bin/sh", "-c",
				  "mkfifo /tmp/f; python3 -c '\nimport os\n"
				  "os.posix_spawn(\"/bin/true\", [\"true\"], {}, "
				  "file_actions=[(os.POSIX_SPAWN_OPEN, 0, \"/tmp/f\", os.O_RDONLY, 0)])' & "
				  "exec python3 -c '" TICK "'",
				  NULL};
	static char *forking[] = {"/usr/bin/python3", "-c",
				  "import os\n"
				  "for _ in range(200):\n"
				  "    if os.fork() == 0:\n"
				  "        while True:\n"
				  "            try:\n"
				  "                pid = os.fork()\n"
				  "            except OSError:\n"
				  "                continue\n"
				  "            if pid == 0: os._exit(0)\n"
				  "            os.waitpid(pid, 0)\n" TICK,
				  NULL};

	begin("app-2", waiting, 64);
	assert_true(ticks("app-2"));
	bool a = freeze_or_roll_back("app-2");
	end("app-2", 0);
	begin("app-3", forking, 1000);
	assert_true(ticks("app-3"));
	bool b = freeze_or_roll_back("app-3");
	for (int i = 0; i < 3; i++)
		freeze_or_roll_back("app-3");
	end("app-3", 0);
	print_message("#   in vfork: %s; 200 that fork: %s\n", a ? "frozen" : "rolled back",
		      b ? "frozen" : "rolled back");
}

/* -- with connections ---------------------------------------------------------------------------------------------------- */

static char *server[] = {"/usr/bin/python3", "-c",
			 "import socketserver, threading, time\n"
			 "class H(socketserver.BaseRequestHandler):\n"
			 "    def handle(self):\n"
			 "        while True:\n"
			 "            d = self.request.recv(64)\n"
			 "            if not d: return\n"
			 "            self.request.sendall(d.upper())\n"
			 "class S(socketserver.ThreadingTCPServer):\n"
			 "    request_queue_size = 4096\n"
			 "    daemon_threads = True\n"
			 "threading.stack_size(64 << 10)\n"
			 "s = S(('0.0.0.0', 7860), H)\n"
			 "threading.Thread(target=s.serve_forever).start()\n"
			 "last = time.monotonic()\n"
			 "print('ready', flush=True)\n"
			 "while True:\n"
			 "    time.sleep(0.05)\n"
			 "    now = time.monotonic()\n"
			 "    if now - last > 0.8: print('jump', now - last, flush=True)\n"
			 "    last = now\n",
			 NULL};

/* Sockets inside, each connecting; blocking from then on. */
static void dial(const char *name, int *fds, uint32_t n)
{
	struct sockaddr_in a = {
	    .sin_family = AF_INET, .sin_port = htons(7860), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	for (uint32_t made = 0; made < n;) {
		cleanup_buf struct buf b = BUF_INIT;
		struct frame f;
		uint32_t now = n - made < 16 ? n - made : 16;

		put_str(&b, name);
		put_u32(&b, now);
		assert_int_equal(answer(request(SPAWN_OPEN, &b, NULL, 0), &f), 0);
		for (uint32_t i = 0; i < now; i++, made++) {
			fds[made] = frame_take_fd(&f, (int)i);
			if (connect(fds[made], (struct sockaddr *)&a, sizeof a) < 0)
				assert_int_equal(errno, EINPROGRESS);
		}
		frame_release(&f);
	}
}

static bool connected(int fd)
{
	struct pollfd p = {fd, POLLOUT, 0};
	socklen_t len = sizeof(int);
	int e = 0;

	return poll(&p, 1, DEADLINE_MS) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 && e == 0;
}

static bool echoes(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	char c[4];

	return poll(&p, 1, ms) == 1 && recv(fd, c, sizeof c, 0) == 4 && memcmp(c, "PING", 4) == 0;
}

static void serve(const char *name)
{
	uint64_t until = io_now_ms() + DEADLINE_MS;

	begin(name, server, 2000);
	while (log_size(name) == 0) {
		assert_true(io_now_ms() < until);
		poll(NULL, 0, 10);
	}
}

static void test_i3(void **unused)
{
	int fd;

	serve("app-4");
	assert_int_equal(call_freeze("app-4"), 0);
	dial("app-4", &fd, 1);
	assert_true(connected(fd)); /* the kernel alone: connect() is no sign of health */
	assert_int_equal(send(fd, "ping", 4, 0), 4);
	assert_false(echoes(fd, 500));
	assert_int_equal(call_name(SPAWN_THAW, "app-4", NULL), 0);
	assert_true(echoes(fd, DEADLINE_MS));
	close(fd);
	end("app-4", 0);
}

static void test_i4(void **unused)
{
	static int fds[REQUESTS];

	serve("app-5");
	for (int round = 0; round < 2; round++) { /* before it is frozen, and while it is */
		if (round)
			assert_int_equal(call_freeze("app-5"), 0);
		dial("app-5", fds, REQUESTS);
		for (int i = 0; i < REQUESTS; i++) {
			assert_true(connected(fds[i]));
			assert_int_equal(send(fds[i], "ping", 4, 0), 4);
		}
		if (!round)
			assert_int_equal(call_freeze("app-5"), 0);
		assert_int_equal(call_name(SPAWN_THAW, "app-5", NULL), 0);
		for (int i = 0; i < REQUESTS; i++) {
			assert_true(echoes(fds[i], DEADLINE_MS));
			close(fds[i]);
		}
	}
	dial("app-5", fds, 16); /* open while it is stopped: they end, and nobody hangs */
	end("app-5", 2000);
	for (int i = 0; i < 16; i++) {
		struct pollfd p = {fds[i], POLLIN, 0};
		char c;
		assert_true(poll(&p, 1, DEADLINE_MS) == 1 && recv(fds[i], &c, 1, 0) <= 0);
		close(fds[i]);
	}
}

static void test_i5(void **unused)
{
	serve("app-6");
	assert_int_equal(call_freeze("app-6"), 0);
	poll(NULL, 0, 1500);
	assert_int_equal(call_name(SPAWN_THAW, "app-6", NULL), 0);
	uint64_t until = io_now_ms() + DEADLINE_MS;
	cleanup_free char *text = log_text("app-6");
	while (!strstr(text, "jump")) { /* CLOCK_MONOTONIC goes on without it: said in sandbox/README.md */
		assert_true(io_now_ms() < until);
		poll(NULL, 0, 10);
		free(text);
		text = log_text("app-6");
	}
	end("app-6", 0);
}

static void test_i6(void **unused)
{
	int fd;

	serve("app-7");
	dial("app-7", &fd, 1);
	assert_true(connected(fd));
	assert_int_equal(send(fd, "ping", 4, 0), 4);
	assert_true(echoes(fd, DEADLINE_MS));
	for (int i = 0; i < 3; i++) { /* the half-open connection outlives it */
		assert_int_equal(call_freeze("app-7"), 0);
		assert_int_equal(send(fd, "ping", 4, 0), 4);
		assert_false(echoes(fd, STILL_MS));
		assert_int_equal(call_name(SPAWN_THAW, "app-7", NULL), 0);
		assert_true(echoes(fd, DEADLINE_MS));
	}
	close(fd);
	end("app-7", 0);
}

/* Takes what can be taken from the only app, which is frozen: on v1 and v2 by the memory controller. */
static bool reclaim(const char *name)
{
	static const char *const roots[][2] = {{"/sys/fs/cgroup/memory", "memory.force_empty"},
					       {"/sys/fs/cgroup", "memory.reclaim"}};
	const char *groups[] = {name, "shell.0", "shell.1", "shell.2", "shell.3"};

	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		for (size_t k = 0; k < 2; k++) {
			cleanup_free char *group = xasprintf("%s/spaced-%s/%s", roots[k][0], tag, groups[i]);
			cleanup_free char *path = xasprintf("%s/%s", group, roots[k][1]);
			cleanup_close int fd = is_waiting(group) ? -1 : open(path, O_WRONLY | O_CLOEXEC);
			/* not all of it may go: that is no failure */
			if (fd >= 0)
				return write(fd, "1G", 2) > 0 || errno == EAGAIN || errno == EBUSY;
		}
	}
	return false;
}

static void test_i7(void **unused)
{
	int fd;

	serve("app-8");
	assert_int_equal(call_freeze("app-8"), 0);
	assert_true(reclaim("app-8"));
	dial("app-8", &fd, 1);
	assert_true(connected(fd));
	assert_int_equal(send(fd, "ping", 4, 0), 4);
	uint64_t t0 = io_now_ms();
	assert_int_equal(call_name(SPAWN_THAW, "app-8", NULL), 0);
	assert_true(echoes(fd, DEADLINE_MS));
	print_message("#   awake after %d ms\n", (int)(io_now_ms() - t0));
	close(fd);
	end("app-8", 0);
}

/* A test that has failed leaves its sandbox to us. */
static int stop_all(void **unused)
{
	static const char *const names[] = {"app-1", "app-2", "app-3", "app-4", "app-5", "app-6", "app-7", "app-8"};

	for (size_t i = 0; geteuid() == 0 && i < sizeof names / sizeof *names; i++)
		if (listed(names[i]) == 1)
			call_stop(names[i], 0);
	return state_remove(unused);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    {"I1", test_i1, NULL, NULL, NULL}, {"I2", test_i2, NULL, NULL, NULL}, {"I3", test_i3, NULL, NULL, NULL},
	    {"I4", test_i4, NULL, NULL, NULL}, {"I5", test_i5, NULL, NULL, NULL}, {"I6", test_i6, NULL, NULL, NULL},
	    {"I7", test_i7, NULL, NULL, NULL},
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, state_make, stop_all);
}
