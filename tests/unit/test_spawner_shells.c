/* Sandboxes that the spawner makes ahead: what becomes of them, what they know, and what is left of them. */
#include "tests/unit/spawner_helper.h"

static char sleep_[] = "sleep", forever[] = "1000000", *sleeper[] = {sleep_, forever, NULL};
static char true_[] = "true", *truth[] = {true_, NULL};

/* Calls `each` for the maker and for those that wait with a shell: root, of that name, with a file of this state folder. */
static int with_makers(void (*each)(pid_t pid))
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *status = xasprintf("/proc/%s/status", e->d_name);
		cleanup_free char *fds = xasprintf("/proc/%s/fd", e->d_name);
		bool ours = false;
		struct dirent *f;

		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !lines_with(status, "Name:\tspaced-shells") ||
		    !lines_with(status, "Uid:\t0\t"))
			continue;
		cleanup_dir DIR *open_files = opendir(fds);
		while (open_files && (f = readdir(open_files)) != NULL) {
			char link[300];
			ssize_t k = readlinkat(dirfd(open_files), f->d_name, link, sizeof link - 1);
			link[k > 0 ? k : 0] = '\0';
			ours |= strstr(link, strrchr(state, '/')) != NULL;
		}
		n += ours;
		if (ours && each)
			each((pid_t)atoi(e->d_name));
	}
	return n;
}

static bool is_maker(pid_t pid)
{
	cleanup_free char *stat = xasprintf("/proc/%d/stat", pid);
	char parent[32];

	snprintf(parent, sizeof parent, ") S %d ", spawner_pid);
	return lines_with(stat, parent) > 0;
}

/* Those that are to end: there may be new ones at any time. */
static pid_t doomed[32];
static size_t ndoomed;

static void note(pid_t pid)
{
	assert_true(ndoomed < sizeof doomed / sizeof *doomed);
	doomed[ndoomed++] = pid;
}

static void kill_it(pid_t pid)
{
	note(pid);
	kill(pid, SIGKILL);
}

static int still_there(void)
{
	int n = 0;

	for (size_t k = 0; k < ndoomed; k++)
		n += kill(doomed[k], 0) == 0;
	return n;
}

static void note_who_waits(pid_t pid)
{
	if (!is_maker(pid))
		note(pid);
}

static void kill_who_waits(pid_t pid)
{
	if (!is_maker(pid))
		kill_it(pid);
}

static void kill_maker(pid_t pid)
{
	if (is_maker(pid))
		kill_it(pid);
}

/* Pid 1 of those that wait: root of a shell's range. */
static int with_shells(void (*each)(pid_t pid))
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !has_id(e->d_name, 0))
			continue;
		n++;
		if (each)
			each((pid_t)atoi(e->d_name));
	}
	return n;
}

static int missing(void)
{
	return with_shells(NULL) == SHELLS ? 0 : 1;
}

static int waiting(void)
{
	return with_shells(NULL);
}

static void need_shells(void)
{
	char tree[32];

	need_root();
	snprintf(tree, sizeof tree, "spaced-%s", tag);
	cgroup_set_tree(tree);
	if (cgroup_host()->kind == CGROUP_NONE) {
		print_message("# SKIP no cgroups\n");
		skip();
	}
	assert_true(eventually_zero(missing));
}

/* By the note: its last number but for the volumes, behind that of the link, which none of these has. */
static uint32_t shell_of(const char *name)
{
	cleanup_free char *path = xasprintf("%s/sandboxes/%s/info", state, name);
	cleanup_buf struct buf b = BUF_INIT;
	const uint32_t none = NO_EGRESS;
	uint32_t number = 0;

	assert_int_equal(io_read_file(AT_FDCWD, path, 65536, &b), 0);
	const char *link = memmem(b.data, b.len, &none, sizeof none);
	assert_non_null(link);
	memcpy(&number, link + sizeof none, sizeof number);
	return number;
}

static void end(const char *name)
{
	assert_int_equal(call_stop(name, 0), 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

/* One that waits is taken as soon as the spawner has heard that it is made. */
static uint32_t start_of_shell(const char *name, char **argv)
{
	uint64_t until = io_now_ms() + DEADLINE_MS;

	for (;;) {
		struct sandbox_spec s = spec_of(name, argv);

		assert_int_equal(start(&s), 0);
		if (shell_of(name) != NO_SHELL)
			return shell_of(name);
		end(name);
		assert_true(io_now_ms() < until);
		assert_true(eventually_zero(missing));
	}
}

static void run(const char *name)
{
	struct sandbox_spec s = spec_of(name, truth);

	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit(name).status, 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

static void test_becomes_an_app(void **unused)
{
	need_shells();
	uint32_t number = start_of_shell("app-1-1", sleeper);
	char group[SANDBOX_NAME_MAX + 1];
	struct cgroup cg;
	struct cgroup_stats stats;
	struct err err;

	shell_group(number, group);
	assert_int_equal(cgroup_host()->open(group, &cg, &err), 0);
	assert_int_equal(cgroup_host()->stats(&cg, &stats, &err), 0);
	assert_int_equal(stats.memory_limit, 256 << 20);
	assert_int_equal(stats.pids_limit, 64);
	assert_int_equal(stats.pids, 2);
	assert_int_equal(call_name(SPAWN_FREEZE, "app-1-1", NULL), 0);
	assert_int_equal(call_name(SPAWN_THAW, "app-1-1", NULL), 0);
	/* the number is its own as long as it runs ... */
	assert_true(eventually_zero(missing));
	uint32_t second = start_of_shell("app-1-2", sleeper);
	assert_int_not_equal(second, number);
	/* ... and then free again, with nothing left of it */
	end("app-1-1");
	assert_int_equal(cgroup_host()->open(group, &cg, &err), -1);
	end("app-1-2");
	nothing_left();
}

/* Whoever waits for the next app has never seen anything of another. The secret is made up after the maker was. */
static char secret[64];

static void knows_nothing(pid_t pid)
{
	assert_false(memory_holds(pid, secret));
}

static void test_knows_no_secret(void **unused)
{
	char path[] = "PATH=/usr/bin:/bin", *env[] = {path, secret, NULL};
	struct sandbox_spec s = spec_of("app-2-1", sleeper);

	need_shells();
	snprintf(secret, sizeof secret, "TOKEN=%llx", (unsigned long long)io_wall_ms() * 0x9e3779b97f4a7c15U);
	s.env = env;
	assert_int_equal(start(&s), 0);
	assert_true(eventually_zero(missing));
	with_shells(knows_nothing);
	assert_true(with_makers(knows_nothing) >= 1 + SHELLS);
	end("app-2-1");
}

/* Sockets and pipes of the spawner: control's, the monitors', the logs'. */
static bool is_spawners(const char *link)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", spawner_pid);
	cleanup_dir DIR *d = opendir(fds);
	struct dirent *e;
	char theirs[300];

	while (d && (e = readdir(d)) != NULL) {
		ssize_t k = readlinkat(dirfd(d), e->d_name, theirs, sizeof theirs - 1);
		theirs[k > 0 ? k : 0] = '\0';
		if ((strncmp(link, "socket:", 7) == 0 || strncmp(link, "pipe:", 5) == 0) && strcmp(theirs, link) == 0 &&
		    atoi(e->d_name) > 2)
			return true;
	}
	return false;
}

static void holds_nothing(pid_t pid)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", pid);
	cleanup_dir DIR *d = opendir(fds);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		char link[300];
		ssize_t k = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
		link[k > 0 ? k : 0] = '\0';
		if (atoi(e->d_name) > 2 && is_spawners(link))
			fail_msg("descriptor %s of process %d is the spawner's %s", e->d_name, pid, link);
	}
}

static void test_holds_nothing_of_others(void **unused)
{
	need_shells();
	start_of_shell("app-3-1", sleeper);
	assert_true(eventually_zero(missing));
	assert_int_equal(with_shells(holds_nothing), SHELLS);
	with_makers(holds_nothing);
	end("app-3-1");
}

/* Dead ones are noticed, and a start makes do without. */
static void test_dies(void **unused)
{
	for (size_t k = 0; k < 2; k++) {
		need_shells();
		ndoomed = 0;
		if (k == 0) {
			with_makers(note_who_waits);
			with_shells(kill_it);
		} else {
			with_shells(note);
			with_makers(kill_who_waits);
		}
		assert_int_equal(ndoomed, 2 * SHELLS);
		assert_true(eventually_zero(still_there));
		run("app-4-1");
	}
	nothing_left();
}

/* Nobody makes any more: all starts are by forks of the spawner, until there is another spawner. */
static void test_without_their_maker(void **unused)
{
	need_shells();
	ndoomed = 0;
	with_makers(kill_maker);
	for (int k = 0; k < 2 * SHELLS; k++)
		run("app-5-1");
	assert_int_equal(waiting(), 0);
	nothing_left();
	need_shells();
}

/* A spawner that is killed takes those that wait along, not what has become of one; and the next one knows its number. */
static void test_after_a_restart(void **unused)
{
	static const char *const names[] = {"app-6-1", "app-6-2", "app-6-3", "app-6-4", "app-6-5"};
	enum { BEFORE = 3, ALL = 5 };
	uint32_t numbers[ALL];

	need_shells();
	for (int k = 0; k < ALL; k++) {
		if (k == BEFORE) {
			assert_true(eventually_zero(missing));
			spawner_down(SIGKILL);
			assert_true(eventually_zero(waiting));
			spawner_up();
		}
		assert_true(eventually_zero(missing));
		numbers[k] = start_of_shell(names[k], sleeper);
		for (int other = 0; other < k; other++)
			assert_int_not_equal(numbers[other], numbers[k]);
	}
	for (int k = 0; k < ALL; k++) {
		assert_int_equal(listed(names[k]), 1);
		end(names[k]);
	}
	nothing_left();
}

/* With the spawner at once: what they leave is found by the next ones of the same numbers. */
static void test_all_are_killed(void **unused)
{
	need_shells();
	ndoomed = 0;
	with_makers(kill_it);
	spawner_down(SIGKILL);
	assert_true(eventually_zero(waiting));
	spawner_up();
	need_shells();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_becomes_an_app),	    cmocka_unit_test(test_knows_no_secret),
	    cmocka_unit_test(test_holds_nothing_of_others), cmocka_unit_test(test_dies),
	    cmocka_unit_test(test_without_their_maker),	    cmocka_unit_test(test_after_a_restart),
	    cmocka_unit_test(test_all_are_killed),
	};

	close_range(3, ~0U, 0); /* what this test was started with is nobody's secret */
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
