/* Limits that a running sandbox feels are told by the spawner while it runs on; its end has exact reasons; the io limit of
 * volumes holds; and a thaw wins over a freeze that is under way. */
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "spawner_helper.h"

#define MIB (1ULL << 20)

static void forget(const char *name)
{
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

/* The sentence about `kind` of `name`, once it comes; other events are put aside. */
static const char *wait_limit(const char *name, enum limit_kind kind)
{
	static char text[LIMIT_SENTENCE];
	uint64_t end = io_now_ms() + DEADLINE_MS;

	for (;;) {
		for (size_t i = 0; i < nlimits; i++) {
			if (limits[i].kind == kind && strcmp(limits[i].name, name) == 0) {
				memcpy(text, limits[i].sentence, sizeof text);
				limits[i] = limits[--nlimits];
				return text;
			}
		}
		struct pollfd p = {control, POLLIN, 0};
		struct frame f;
		assert_true(io_now_ms() < end && poll(&p, 1, DEADLINE_MS) == 1);
		assert_int_equal(frame_recv(control, &f), 1);
		assert_true(note_event(&f));
	}
}

static void log_has(const char *name, const char *what)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	free(log_text(name));
	while (!lines_with(log_path, what) && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_true(lines_with(log_path, what));
}

/* A child goes over the limit; the app lives, and ends later for another reason. */
static void test_a_child_is_killed(void **unused)
{
	char *argv[] = {"/usr/bin/python3", "-c",
			"import os, time\n"
			"pid = os.fork()\n"
			"if pid == 0: x = bytearray(1 << 30); os._exit(0)\n"
			"print('child', os.waitpid(pid, 0)[1], flush=True)\n"
			"time.sleep(1000)",
			NULL};
	struct sandbox_spec s = spec_of("app-1-1", argv);

	need_root();
	s.limits.memory = 64 * MIB;
	assert_int_equal(start(&s), 0);
	assert_string_equal(wait_limit("app-1-1", LIMIT_MEMORY),
			    "memory: a process was killed: the app used 64 MiB of 64 MiB");
	log_has("app-1-1", "child 9");
	assert_int_equal(listed("app-1-1"), 1);
	assert_int_equal(call_stop("app-1-1", 0), 0);
	struct sandbox_exit e = wait_exit("app-1-1");
	assert_true(e.stopped && !e.oom);
	forget("app-1-1");
}

/* The Python of the app. */
static pid_t main_process(void)
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *p;

	while (d && (p = readdir(d)) != NULL) {
		char path[300];
		snprintf(path, sizeof path, "/proc/%s/status", p->d_name);
		if (p->d_name[0] >= '1' && p->d_name[0] <= '9' && is_app(p->d_name) &&
		    lines_with(path, "Name:\tpython3"))
			return (pid_t)atoi(p->d_name);
	}
	return -1;
}

/* The main process is killed by somebody, long after a child was by the limit: another reason. */
static void test_reason_is_what_just_happened(void **unused)
{
	char *argv[] = {"/usr/bin/python3", "-c",
			"import os, time\n"
			"pid = os.fork()\n"
			"if pid == 0: x = bytearray(1 << 30); os._exit(0)\n"
			"os.waitpid(pid, 0); print('lost', flush=True); time.sleep(1000)",
			NULL};
	char *worker[] = {"/usr/bin/python3", "-c",
			  "import os, sys\n"
			  "pid = os.fork()\n"
			  "if pid == 0: x = bytearray(1 << 30); os._exit(0)\n"
			  "sys.exit(os.waitpid(pid, 0)[1] and 3)",
			  NULL};
	struct sandbox_spec s = spec_of("build-1-1", worker);

	need_root();
	/* a build whose compiler was killed */
	s.profile = SANDBOX_BUILD;
	s.limits.memory = 64 * MIB;
	assert_int_equal(start(&s), 0);
	struct sandbox_exit e = wait_exit("build-1-1");
	assert_int_equal(e.status, 3);
	assert_true(e.oom);
	assert_string_equal(e.reason, "a process of it was killed: used 64 MiB of 64 MiB");
	forget("build-1-1");

	s = spec_of("app-2-1", argv);
	s.limits.memory = 64 * MIB;
	assert_int_equal(start(&s), 0);
	wait_limit("app-2-1", LIMIT_MEMORY);
	log_has("app-2-1", "lost");
	poll(NULL, 0, 6000); /* what counts as having just happened is over */
	struct frame f;
	assert_int_equal(call_name(SPAWN_STATS, "app-2-1", &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	get_u64(&r), get_u64(&r), get_u32(&r);
	assert_int_equal(get_u64(&r), 64 * MIB);
	assert_in_range(get_u64(&r), 63 * MIB, 64 * MIB);
	get_u64(&r);
	assert_int_equal(get_u64(&r), 1); /* killed */
	frame_release(&f);
	pid_t pid = main_process();
	assert_true(pid > 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	e = wait_exit("app-2-1");
	assert_string_equal(e.reason, "killed by signal 9 (Killed)");
	assert_false(e.oom);
	forget("app-2-1");
}

static void test_refused_forks(void **unused)
{
	char *argv[] = {"/bin/bash", "-c",
			"for i in $(seq 40); do sleep 1000 & done 2>/dev/null; echo done; sleep 1000", NULL};
	struct sandbox_spec s = spec_of("app-3-1", argv);

	need_root();
	s.limits.pids = 16;
	assert_int_equal(start(&s), 0);
	assert_string_equal(wait_limit("app-3-1", LIMIT_PIDS), "processes: 16 of 16: new ones were refused");
	assert_int_equal(call_stop("app-3-1", 0), 0);
	wait_exit("app-3-1");
	forget("app-3-1");
}

static void test_full_disk(void **unused)
{
	char *argv[] = {"/bin/sh", "-c", "dd if=/dev/zero of=/app/big bs=64k; df -i /; echo full; sleep 1000", NULL};
	struct sandbox_spec s = spec_of("app-4-1", argv);

	need_root();
	assert_int_equal(volume_make("top-4-1", 16 * MIB), 0);
	s.top = "top-4-1";
	assert_int_equal(start(&s), 0);
	log_has("app-4-1", "full");
	assert_true(lines_with(log_path, "No space left on device"));
	const char *text = wait_limit("app-4-1", LIMIT_TOP);
	assert_int_equal(strncmp(text, "disk: full: ", 12), 0);
	struct frame f;
	assert_int_equal(call_name(SPAWN_STATS, "app-4-1", &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	get_u64(&r), get_u64(&r), get_u32(&r);
	get_u64(&r), get_u64(&r), get_u64(&r), get_u64(&r);
	get_u32(&r), get_u32(&r);
	uint64_t used = get_u64(&r), size = get_u64(&r), inodes_used = get_u64(&r), inodes = get_u64(&r);
	assert_in_range(size, 12 * MIB, 16 * MIB);
	assert_in_range(used, size - size / 50, size);
	assert_in_range(inodes, 1000, 4096);
	assert_in_range(inodes_used, 12, 40);
	assert_int_equal(get_u64(&r) + get_u64(&r), 0); /* no /data */
	assert_false(r.bad);
	frame_release(&f);
	assert_int_equal(call_stop("app-4-1", 0), 0);
	wait_exit("app-4-1");
	forget("app-4-1");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "top-4-1", NULL), 0);
}

/* Direct writes to a volume, with the limit and without it: how much longer, and how near to the limit. */
static void test_io_limit(void **unused)
{
	char *argv[] = {"/bin/sh", "-c",
			"t=$(date +%s%N); dd if=/dev/zero of=/app/x bs=256k count=32 oflag=direct 2>&1; "
			"echo took $((($(date +%s%N) - t) / 1000000))",
			NULL};
	long took[2];

	need_root();
	if (!cgroup_has_io()) {
		print_message("# SKIP no io controller here\n");
		skip();
	}
	for (int k = 0; k < 2; k++) {
		struct sandbox_spec s = spec_of(k ? "app-5-2" : "app-5-1", argv);

		s.top = k ? "top-5-2" : "top-5-1";
		s.limits.io_bytes = k ? 4 * MIB : 0;
		assert_int_equal(volume_make(s.top, 64 * MIB), 0);
		assert_int_equal(start(&s), 0);
		assert_int_equal(wait_exit(s.name).status, 0);
		cleanup_free char *text = log_text(s.name);
		assert_non_null(strstr(text, "took "));
		took[k] = strtol(strstr(text, "took ") + 5, NULL, 10);
		forget(s.name);
		assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, s.top, NULL), 0);
	}
	print_message("# 8 MiB: %ld ms, at 4 MiB/s %ld ms\n", took[0], took[1]);
	if (took[0] > 1400) {
		print_message("# SKIP this disk is no quicker than the limit\n");
		skip();
	}
	assert_true(took[1] > 1400); /* 2000 ms are due; the kernel gives some at once */
}

/* An app's dd, in uninterruptible sleep within write(2): proc_pid_syscall(5). */
static bool is_stuck(const char *pid)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *comm = xasprintf("/proc/%s/comm", pid);
	cleanup_free char *status = xasprintf("/proc/%s/status", pid);
	cleanup_free char *call = xasprintf("/proc/%s/syscall", pid);

	return is_app(pid) && lines_with(comm, "dd") == 1 && lines_with(status, "State:\tD") == 1 &&
	       io_read_file(AT_FDCWD, call, 256, &b) == 0 && strtol(b.data, NULL, 10) == SYS_write;
}

static void wait_stuck(void)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	for (bool found = false; !found;) {
		cleanup_dir DIR *d = opendir("/proc");
		struct dirent *e;

		while (!found && (e = readdir(d)) != NULL)
			found = e->d_name[0] >= '1' && e->d_name[0] <= '9' && is_stuck(e->d_name);
		assert_true(found || io_now_ms() < end);
		poll(NULL, 0, found ? 0 : 20);
	}
}

/* A freeze, and what is asked for right after it: the spawner finds both at once, however slow we are. */
static int freeze_and(uint32_t verb, const struct buf *arguments, const char *name)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	kill(spawner_pid, SIGSTOP);
	uint32_t freeze = request(SPAWN_FREEZE, &b, NULL, 0);
	uint32_t other = request(verb, arguments, NULL, 0);
	kill(spawner_pid, SIGCONT);
	int code = answer(freeze, NULL);
	assert_int_equal(answer(other, NULL), 0);
	return code;
}

/* A process that vanishes into uninterruptible sleep keeps the group from being frozen: the thaw does not wait for that. */
static void test_thaw_wins(void **unused)
{
	char *argv[] = {"/bin/sh", "-c",
			"dd if=/dev/zero of=/app/x bs=16M count=1 oflag=direct 2>/dev/null; sleep 1000", NULL};
	struct sandbox_spec s = spec_of("app-6-1", argv);
	cleanup_buf struct buf b = BUF_INIT;

	need_root();
	if (!cgroup_has_io()) {
		print_message("# SKIP no io controller here\n");
		skip();
	}
	s.top = "top-6-1";
	s.limits.io_bytes = SANDBOX_IO_MIN; /* four minutes for the 16 megabytes */
	assert_int_equal(volume_make(s.top, 64 * MIB), 0);
	assert_int_equal(start(&s), 0);
	wait_stuck();
	put_str(&b, "app-6-1");
	assert_int_equal(freeze_and(SPAWN_THAW, &b, "app-6-1"), ECANCELED); /* not ETIMEDOUT, after two seconds */
	/* undisturbed it fails, and is rolled back */
	assert_int_equal(call_name(SPAWN_FREEZE, "app-6-1", NULL), ETIMEDOUT);
	assert_int_equal(call_name(SPAWN_THAW, "app-6-1", NULL), 0);
	/* a stop ends it too, and does not wait for the rest of what is written */
	put_u32(&b, 0);
	assert_int_equal(freeze_and(SPAWN_STOP, &b, "app-6-1"), ECANCELED);
	wait_exit("app-6-1");
	forget("app-6-1");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "top-6-1", NULL), 0);
}

static void test_nothing_left(void **unused)
{
	need_root();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_child_is_killed), cmocka_unit_test(test_reason_is_what_just_happened),
	    cmocka_unit_test(test_refused_forks),     cmocka_unit_test(test_full_disk),
	    cmocka_unit_test(test_io_limit),	      cmocka_unit_test(test_thaw_wins),
	    cmocka_unit_test(test_nothing_left),
	};
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
