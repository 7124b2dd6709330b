/* What is said of limits, when, and how often (sandbox/limits.h). Pure: the clock and the counters are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "sandbox/limits.h"

static char said[LIMIT_KINDS][LIMIT_SENTENCE];
static int times[LIMIT_KINDS];

static void say(void *ctx, enum limit_kind kind, const char *sentence)
{
	snprintf(said[kind], sizeof said[kind], "%s", sentence);
	times[kind]++;
}

static int forget(void **state)
{
	memset(said, 0, sizeof said);
	memset(times, 0, sizeof times);
	return 0;
}

static const struct cgroup_stats calm = {
    .memory_limit = 512 << 20, .memory_peak = (512 << 20) - 4096, .pids_limit = 64, .cpu_milli = 2000};

static void names_of_sizes(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} table[] = {{0, "0 bytes"},	      {1023, "1023 bytes"},	     {1024, "1 KiB"},
		     {1536, "1.5 KiB"},	      {512 << 20, "512 MiB"},	     {(1ULL << 30) - 4096, "1 GiB"},
		     {20ULL << 30, "20 GiB"}, {(24 << 20) - 9000, "24 MiB"}, {1ULL << 42, "4 TiB"}};
	char text[16];

	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		limits_bytes(table[i].n, text);
		assert_string_equal(text, table[i].text);
	}
}

static void memory_is_told_at_once_and_then_rarely(void **state)
{
	struct limit_watch w = {0};
	struct cgroup_stats s = calm;

	limits_look(&w, &s, NULL, 1000, true, say, NULL);
	assert_int_equal(times[LIMIT_MEMORY], 0);
	s.oom_kills = 1;
	limits_look(&w, &s, NULL, 2000, true, say, NULL);
	assert_string_equal(said[LIMIT_MEMORY], "memory: a process was killed: the app used 512 MiB of 512 MiB");
	/* Within the minute nothing, and nothing is lost. */
	for (uint64_t t = 3000; t < 62000; t += 1000) {
		s.oom_kills++;
		limits_look(&w, &s, NULL, t, true, say, NULL);
	}
	assert_int_equal(times[LIMIT_MEMORY], 1);
	limits_look(&w, &s, NULL, 62000, true, say, NULL);
	assert_int_equal(times[LIMIT_MEMORY], 2);
	assert_string_equal(said[LIMIT_MEMORY], "memory: 59 processes were killed: the app used 512 MiB of 512 MiB");
	/* Once a second for a day: some dozens, not a thousand. */
	for (uint64_t t = 63000; t < 24ULL * 3600 * 1000; t += 1000) {
		s.oom_kills++;
		limits_look(&w, &s, NULL, t, true, say, NULL);
	}
	assert_in_range(times[LIMIT_MEMORY], 20, 32);
}

/* The counters of a sandbox that was there before us have been told of; a new one's begin at 0. */
static void first_look(void **state)
{
	struct limit_watch w = {0}, fresh = {0};
	struct cgroup_stats s = calm;

	s.oom_kills = 3;
	s.refused = 2;
	limits_look(&w, &s, NULL, 1000, false, say, NULL);
	assert_int_equal(times[LIMIT_MEMORY] + times[LIMIT_PIDS], 0);
	assert_int_equal(w.oom_at, 0);
	limits_look(&fresh, &s, NULL, 1000, true, say, NULL);
	assert_string_equal(said[LIMIT_PIDS], "processes: 64 of 64: new ones were refused");
	assert_int_equal(times[LIMIT_MEMORY], 1);
	assert_int_equal(fresh.oom_at, 1000);
}

static void kinds_do_not_hide_each_other(void **state)
{
	struct limit_watch w = {0};
	struct cgroup_stats s = calm;

	limits_look(&w, &s, NULL, 0, true, say, NULL);
	s.oom_kills = s.refused = 1;
	limits_look(&w, &s, NULL, 1000, true, say, NULL);
	assert_int_equal(times[LIMIT_MEMORY], 1);
	assert_int_equal(times[LIMIT_PIDS], 1);
}

/* 630 of the 1000 periods of 100 s: 63 % of each minute, at a look every ten seconds. */
static void cpu_is_told_when_it_lasts(void **state)
{
	struct limit_watch w = {0};
	struct cgroup_stats s = calm;
	uint64_t t = 0;

	for (int k = 0; k < 6; k++, t += LIMIT_TICK_MS, s.held_back += 63) {
		limits_look(&w, &s, NULL, t, true, say, NULL);
		limits_look(&w, &s, NULL, t + 20, true, say, NULL); /* for another reason: counts for nothing here */
	}
	assert_int_equal(times[LIMIT_CPU], 0);
	limits_look(&w, &s, NULL, t, true, say, NULL);
	assert_string_equal(said[LIMIT_CPU], "CPU: held back 63 % of the last minute at 2 CPUs");
	/* It goes on for hours: that is not news. */
	for (int k = 0; k < 2000; k++, t += LIMIT_TICK_MS, s.held_back += 63)
		limits_look(&w, &s, NULL, t, true, say, NULL);
	assert_int_equal(times[LIMIT_CPU], 1);
	for (int k = 0; k < 10; k++, t += LIMIT_TICK_MS, s.held_back += 10)
		limits_look(&w, &s, NULL, t, true, say, NULL);
	for (int k = 0; k < 7; k++, t += LIMIT_TICK_MS, s.held_back += 100)
		limits_look(&w, &s, NULL, t, true, say, NULL);
	assert_int_equal(times[LIMIT_CPU], 2);
}

static void bursts_are_no_news(void **state)
{
	struct limit_watch w = {0};
	struct cgroup_stats s = calm;

	for (uint64_t t = 0, k = 0; k < 100; k++, t += LIMIT_TICK_MS) {
		s.held_back += k % 3 == 0 ? 90 : 0;
		limits_look(&w, &s, NULL, t, true, say, NULL);
	}
	assert_int_equal(times[LIMIT_CPU], 0);
}

static void disks(void **state)
{
	struct limit_watch w = {0};
	struct usage u = {.top = {.size = 1 << 30, .inodes = 1000}, .data = {.size = 20 << 20, .inodes = 100}};

	limits_look(&w, &calm, &u, 0, true, say, NULL);
	u.data.used = u.data.size;
	limits_look(&w, &calm, &u, 1000, true, say, NULL);
	limits_look(&w, &calm, &u, 2000000, true, say, NULL); /* still full: told */
	assert_int_equal(times[LIMIT_TOP], 0);
	assert_int_equal(times[LIMIT_DATA], 1);
	assert_string_equal(said[LIMIT_DATA], "/data: full: 20 MiB of 20 MiB are used");
	u.data.used = u.data.size - u.data.size / 50; /* a file less: not yet empty */
	limits_look(&w, &calm, &u, 2010000, true, say, NULL);
	u.data.used = u.data.size;
	limits_look(&w, &calm, &u, 2020000, true, say, NULL);
	assert_int_equal(times[LIMIT_DATA], 1);
	u.data.used = 0;
	limits_look(&w, &calm, &u, 2030000, true, say, NULL);
	u.data.used = u.data.size;
	limits_look(&w, &calm, &u, 2040000, true, say, NULL);
	assert_int_equal(times[LIMIT_DATA], 2);
	u.top.used = u.top.size - u.top.size / 90; /* of a gigabyte: there is room */
	limits_look(&w, &calm, &u, 2045000, true, say, NULL);
	assert_int_equal(times[LIMIT_TOP], 0);
	u.top.inodes_used = 1000;
	limits_look(&w, &calm, &u, 2050000, true, say, NULL);
	assert_string_equal(said[LIMIT_TOP], "disk: full: 1000 of 1000 files are there");
}

/* A plain folder has no size: never full. */
static void no_disk(void **state)
{
	struct limit_watch w = {0};
	struct usage u = {0};

	limits_look(&w, &calm, &u, 0, true, say, NULL);
	assert_int_equal(times[LIMIT_TOP] + times[LIMIT_DATA], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_of_sizes),
	    cmocka_unit_test_setup(memory_is_told_at_once_and_then_rarely, forget),
	    cmocka_unit_test_setup(first_look, forget),
	    cmocka_unit_test_setup(kinds_do_not_hide_each_other, forget),
	    cmocka_unit_test_setup(cpu_is_told_when_it_lasts, forget),
	    cmocka_unit_test_setup(bursts_are_no_news, forget),
	    cmocka_unit_test_setup(disks, forget),
	    cmocka_unit_test_setup(no_disk, forget),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
