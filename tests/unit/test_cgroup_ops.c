/* Freeze, thaw, page out, kill and io limits on real groups, on each kind of cgroup that this host has, against what has stuck others:
 * battery I1 (a frozen task and SIGKILL), I2 (vfork, uninterruptible sleep, a thousand threads that fork), with roll-back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/cgroup.h"
#include "sandbox/io_limit.h"

#define TREE "spaced-test-ops"
#define THREADS 1000
#define DEADLINE_MS 60000
#define WRITE_BYTES (4U << 20)
#define WRITE_BYTES_PER_S 16384
#define WRITE_MS (1000 * (WRITE_BYTES / WRITE_BYTES_PER_S)) /* of write_slowly() */

static const char *const forces[] = {"", "cgroup_v1"};

/* Shared with what runs in the group. */
struct shared {
	atomic_ulong turns;
	atomic_int ready;
};
static struct shared *shared;

/* In the child that stands for one kind: a failed check ends it with a message. */
#define CHECK(x) check((x), #x, __LINE__)
static void check(bool ok, const char *what, int line)
{
	if (ok)
		return;
	fprintf(stderr, "# %s line %d: %s\n", cgroup_host()->label, line, what);
	_exit(1);
}

static const struct sandbox_limits limits = {.memory = 512 << 20, .pids = 4000};

static struct cgroup group_make(const char *name)
{
	struct cgroup cg;
	struct err err = ERR_INIT;

	if (cgroup_host()->create(name, &limits, &cg, &err) < 0) {
		fprintf(stderr, "# %s\n", err.msg);
		_exit(1);
	}
	return cg;
}

/* Runs `fn` in the group. */
static pid_t spawn(const struct cgroup *cg, void (*fn)(void))
{
	int go[2];
	struct err err;
	char byte = 0;

	CHECK(pipe2(go, O_CLOEXEC) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		close(go[1]);
		if (read(go[0], &byte, 1) == 1)
			fn();
		_exit(0);
	}
	CHECK(cgroup_host()->attach(cg, pid, &err) == 0);
	if (cg->v2_dir >= 0) { /* hybrid: what CLONE_INTO_CGROUP does for a sandbox */
		cleanup_close int procs = openat(cg->v2_dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
		CHECK(dprintf(procs, "%d", pid) > 0);
	}
	CHECK(write(go[1], &byte, 1) == 1);
	close(go[0]);
	close(go[1]);
	return pid;
}

static bool moves(void)
{
	unsigned long before = atomic_load(&shared->turns);

	for (uint64_t end = io_now_ms() + DEADLINE_MS; io_now_ms() < end; poll(NULL, 0, 10))
		if (atomic_load(&shared->turns) != before)
			return true;
	return false;
}

static bool stands(void)
{
	unsigned long before = atomic_load(&shared->turns);

	poll(NULL, 0, 100);
	return atomic_load(&shared->turns) == before;
}

static void await_ready(void)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	while (!atomic_load(&shared->ready) && io_now_ms() < end)
		poll(NULL, 0, 1);
	CHECK(atomic_load(&shared->ready));
}

/* Long before what runs in it would end by itself. */
static void group_end(struct cgroup *cg, pid_t pid)
{
	struct err err = ERR_INIT;

	CHECK(cgroup_host()->kill(cg, WRITE_MS / 2, &err) == 0);
	CHECK(waitpid(pid, NULL, 0) == pid);
	CHECK(cgroup_host()->remove(cg, &err) == 0);
}

/* ---- what runs inside ---- */

static void err_exit(const char *what)
{
	fprintf(stderr, "# %s: %m\n", what);
	_exit(1);
}

static void spin(void)
{
	atomic_store(&shared->ready, 1);
	for (;;)
		atomic_fetch_add(&shared->turns, 1);
}

static void *fork_on(void *arg)
{
	for (;;) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
		atomic_fetch_add(&shared->turns, 1);
		atomic_store(&shared->ready, 1);
	}
	return NULL;
}

static void fork_storm(void)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1 << 18);
	for (int i = 0; i < THREADS; i++)
		if ((errno = pthread_create(&t, &attr, fork_on, NULL)) != 0)
			err_exit("thread");
	pause();
}

static void vfork_wait(void)
{
	pid_t pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork): it is what is tested

	if (pid == 0) {
		atomic_store(&shared->ready, 1);
		for (;;)
			pause(); // NOLINT(clang-analyzer-unix.Vfork)
	}
	_exit(0);
}

static char file[] = "/var/tmp/test-cgroup-ops-XXXXXX";

/* Four megabytes, slowly: uninterruptible until it is written. */
static void write_slowly(void)
{
	void *block = mmap(NULL, WRITE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open(file, O_WRONLY | O_DIRECT | O_CLOEXEC);

	memset(block, 1, WRITE_BYTES);
	atomic_store(&shared->ready, 1);
	if (pwrite(fd, block, WRITE_BYTES, 0) != WRITE_BYTES)
		err_exit("write");
	spin();
}

/* ---- the cases, each in a child of its own for each kind ---- */

static void thaw_undoes(void)
{
	struct cgroup cg = group_make("thaw");
	pid_t pid = spawn(&cg, spin);
	struct err err;

	await_ready();
	for (int i = 0; i < 20; i++) {
		CHECK(cgroup_host()->freeze(&cg, DEADLINE_MS, &err) == 0);
		CHECK(cgroup_host()->frozen(&cg, -1, 0));
		if (i % 10 == 0)
			CHECK(stands());
		CHECK(cgroup_host()->thaw(&cg, &err) == 0);
		CHECK(moves());
		CHECK(!cgroup_host()->frozen(&cg, -1, 0));
	}
	/* also one that has only just begun */
	int events;
	CHECK(cgroup_host()->freeze_begin(&cg, &events, &err) == 0);
	CHECK(cgroup_host()->thaw(&cg, &err) == 0);
	CHECK(moves());
	if (events >= 0)
		close(events);
	group_end(&cg, pid);
}

/* I1: SIGKILL alone does not end what is frozen on v1. */
static void frozen_is_killed(void)
{
	struct cgroup cg = group_make("kill");
	pid_t pid = spawn(&cg, spin);
	struct err err;

	await_ready();
	CHECK(cgroup_host()->freeze(&cg, DEADLINE_MS, &err) == 0);
	group_end(&cg, pid);
}

static void storm_is_frozen_and_killed(void)
{
	struct cgroup cg = group_make("storm");
	pid_t pid = spawn(&cg, fork_storm);
	struct err err = ERR_INIT;

	await_ready();
	poll(NULL, 0, 100);
	if (cgroup_host()->freeze(&cg, 10000, &err) == 0) {
		CHECK(stands());
		CHECK(cgroup_host()->thaw(&cg, &err) == 0);
	} else {
		CHECK(err.code == ETIMEDOUT);
	}
	CHECK(moves()); /* thawed, or rolled back: never half frozen */
	group_end(&cg, pid);
}

static void vfork_is_frozen(void)
{
	struct cgroup cg = group_make("vfork");
	pid_t pid = spawn(&cg, vfork_wait);
	struct err err = ERR_INIT;

	await_ready();
	CHECK(cgroup_host()->freeze(&cg, DEADLINE_MS, &err) == 0);
	CHECK(cgroup_host()->thaw(&cg, &err) == 0);
	group_end(&cg, pid);
}

static bool state_is(pid_t pid, char want)
{
	cleanup_buf struct buf b = BUF_INIT;
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	const char *p = io_read_file(AT_FDCWD, path, 4096, &b) == 0 && b.data ? strrchr(b.data, ')') : NULL;
	return p && p[2] == want;
}

/* A process that is in the middle of a slow write; the group's limit is `limits` of *spec. */
static pid_t spawn_blocked(struct cgroup *cg, struct sandbox_spec *spec, struct sandbox_sources *src)
{
	struct err err = ERR_INIT;
	struct stat st;

	*spec = (struct sandbox_spec){.limits = {.memory = 512 << 20, .pids = 100, .io_bytes = WRITE_BYTES_PER_S}};
	*src = (struct sandbox_sources){.base_usr = -1, .skeleton = -1, .top = open(file, O_PATH | O_CLOEXEC)};
	if (!cgroup_has_io() || fstat(src->top, &st) < 0 || st.st_dev < 256)
		_exit(77);
	CHECK(cgroup_host()->create("slow", &spec->limits, cg, &err) == 0);
	CHECK(io_limit(cg, spec, src, &err) == 0);
	pid_t pid = spawn(cg, write_slowly);
	await_ready();
	/* It sleeps shortly for other reasons before. */
	uint64_t end = io_now_ms() + DEADLINE_MS;
	for (int seen = 0; seen < 50; seen = state_is(pid, 'D') ? seen + 1 : 0) {
		CHECK(io_now_ms() < end);
		poll(NULL, 0, 1);
	}
	return pid;
}

static void uninterruptible_is_rolled_back(void)
{
	struct sandbox_spec spec;
	struct sandbox_sources src;
	struct err err = ERR_INIT;
	struct cgroup cg;
	pid_t pid = spawn_blocked(&cg, &spec, &src);

	CHECK(cgroup_host()->freeze(&cg, 300, &err) == -1);
	CHECK(err.code == ETIMEDOUT);
	CHECK(!cgroup_host()->frozen(&cg, -1, 0));
	spec.limits.io_bytes = 1 << 30;
	CHECK(io_limit(&cg, &spec, &src, &err) == 0);
	CHECK(moves()); /* out of its sleep it runs, and is not caught by what is left of the freeze */
	group_end(&cg, pid);
}

/* Four minutes are what is left to write: the limit is lifted for the kill. */
static void blocked_is_killed(void)
{
	struct sandbox_spec spec;
	struct sandbox_sources src;
	struct cgroup cg;
	pid_t pid = spawn_blocked(&cg, &spec, &src);

	group_end(&cg, pid);
}

#define HOARD (64U << 20)

static void hoard(void)
{
	char *all = mmap(NULL, HOARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED)
		err_exit("mmap");
	for (size_t i = 0; i < HOARD; i += 512)
		all[i] = (char)(i / 512);
	atomic_store(&shared->ready, 1);
	for (size_t i = 0;; i = (i + 512) % HOARD) {
		if (all[i] != (char)(i / 512))
			_exit(1); /* moves() sees that */
		atomic_fetch_add(&shared->turns, 1);
	}
}

static uint64_t memory_of(const struct cgroup *cg)
{
	struct cgroup_stats stats;
	struct err err;

	CHECK(cgroup_host()->stats(cg, &stats, &err) == 0);
	return stats.memory;
}

/* What is frozen goes to swap, what runs does not; and it has all of it again. */
static void frozen_is_paged_out(void)
{
	struct cgroup cg = group_make("page");
	pid_t pid = spawn(&cg, hoard);
	struct err err = ERR_INIT;
	char limit[16] = "";

	CHECK(cgroup_host()->limit(&cg, &limits, &err) == 0);
	await_ready();
	CHECK(memory_of(&cg) >= HOARD);
	if (cgroup_host()->page_out(&cg, &err) < 0) {
		struct sysinfo si;
		CHECK(err.code == ENOTSUP);
		CHECK(cgroup_host()->kind != CGROUP_V2 || (sysinfo(&si) == 0 && si.freeswap == 0));
		group_end(&cg, pid);
		_exit(77);
	}
	CHECK(memory_of(&cg) >= HOARD);
	CHECK(cgroup_host()->freeze(&cg, DEADLINE_MS, &err) == 0);
	CHECK(cgroup_host()->page_out(&cg, &err) == 0);
	CHECK(memory_of(&cg) < HOARD / 8);
	cleanup_close int fd = openat(cg.v2_dir, "memory.swap.max", O_RDONLY | O_CLOEXEC);
	CHECK(read(fd, limit, sizeof limit - 1) > 0 && strcmp(limit, "0\n") == 0);
	CHECK(cgroup_host()->thaw(&cg, &err) == 0);
	CHECK(moves());
	group_end(&cg, pid);
}

static void in_each_kind(void (*fn)(void))
{
	enum cgroup_kind seen = CGROUP_NONE;
	bool any = false, skipped = false;

	if (geteuid() != 0) {
		print_message("# SKIP needs root\n");
		skip();
	}
	for (size_t i = 0; i < sizeof forces / sizeof *forces; i++) {
		int status, kind[2];
		char byte = CGROUP_NONE;

		assert_int_equal(pipe2(kind, O_CLOEXEC), 0);
		atomic_store(&shared->ready, 0);
		pid_t pid = fork();
		if (pid == 0) {
			setenv("SPACED_FORCE", forces[i], 1);
			cgroup_set_tree(TREE);
			byte = (char)cgroup_host()->kind;
			if (write(kind[1], &byte, 1) != 1 || byte == CGROUP_NONE || (i && byte == (char)seen))
				_exit(77);
			fn();
			_exit(0);
		}
		assert_int_equal(read(kind[0], &byte, 1), 1);
		seen = (enum cgroup_kind)byte;
		close(kind[0]);
		close(kind[1]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			skipped = true;
			continue;
		}
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		any = true;
	}
	if (!any && skipped) {
		print_message("# SKIP this host has no cgroup for it\n");
		skip();
	}
}

#define CASE(name)                                                                                                     \
	static void test_##name(void **state)                                                                          \
	{                                                                                                              \
		in_each_kind(name);                                                                                    \
	}
CASE(thaw_undoes)
CASE(frozen_is_killed)
CASE(storm_is_frozen_and_killed)
CASE(vfork_is_frozen)
CASE(uninterruptible_is_rolled_back)
CASE(blocked_is_killed)
CASE(frozen_is_paged_out)

static int setup(void **state)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = mkstemp(file);

	if (shared == MAP_FAILED || fd < 0)
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	return unlink(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_thaw_undoes),
	    cmocka_unit_test(test_frozen_is_killed),
	    cmocka_unit_test(test_storm_is_frozen_and_killed),
	    cmocka_unit_test(test_vfork_is_frozen),
	    cmocka_unit_test(test_uninterruptible_is_rolled_back),
	    cmocka_unit_test(test_blocked_is_killed),
	    cmocka_unit_test(test_frozen_is_paged_out),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
