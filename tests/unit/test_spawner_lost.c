/* A monitor that is killed before it has told of its sandbox, on a host without cgroups: nothing runs on unseen. */
#include <stdlib.h>

#include "spawner_helper.h"

static size_t children(pid_t of, pid_t out[64])
{
	char path[64], text[4096];
	size_t n = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", of, of);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t k = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	text[k > 0 ? k : 0] = '\0';
	for (char *p = text, *end; n < 64; p = end) {
		long pid = strtol(p, &end, 10);
		if (end == p)
			break;
		out[n++] = (pid_t)pid;
	}
	return n;
}

/* Kills whoever among the spawner's children has a child with a child: pid 1 and its main process. Returns that pid 1. */
static pid_t kill_the_starter(void)
{
	pid_t starters[64], inits[64], mains[64];
	size_t n = children(spawner_pid, starters);

	for (size_t i = 0; i < n; i++) {
		size_t m = children(starters[i], inits);
		for (size_t k = 0; k < m; k++) {
			if (children(inits[k], mains) == 0)
				continue;
			kill(starters[i], SIGKILL);
			return inits[k];
		}
	}
	return 0;
}

static pid_t watched;

static int still_there(void)
{
	return kill(watched, 0) == 0;
}

static void test_killed_while_it_starts(void **unused)
{
	static char *argv[] = {"sleep", "1000", NULL};
	uint64_t end = io_now_ms() + DEADLINE_MS;
	bool hit = false;

	need_root();
	for (unsigned n = 0; !hit; n++) {
		cleanup_buf struct buf b = BUF_INIT;
		char name[32];

		assert_true(io_now_ms() < end);
		snprintf(name, sizeof name, "lost-1-%u", n);
		struct sandbox_spec s = spec_of(name, argv);
		cleanup_close int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
		sandbox_spec_encode(&s, &b);
		put_u8(&b, 0);
		put_u8(&b, 0);
		uint32_t id = request(SPAWN_START, &b, &log, 1);
		for (watched = 0; !watched && io_now_ms() < end;)
			watched = kill_the_starter();
		assert_true(watched > 0);
		hit = answer(id, NULL) != 0; /* else it was the monitor already: another takes its place */
		if (hit)
			assert_int_equal(listed(name), -1);
		else
			assert_int_equal(call_stop(name, 0), 0);
		assert_true(eventually_zero(still_there));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed_while_it_starts)};

	setenv("SPACED_FORCE", "cgroup_none", 1);
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
