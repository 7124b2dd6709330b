/* What proxies count: on the wire, by class, and summed by control over proxies that come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/counters.h"
#include "spaced/metrics.h"

static void answers_by_class(void **state)
{
	struct counters c = {0};
	uint64_t all = 0;

	counters_answered(&c, 101, 3600000, true);
	counters_answered(&c, 200, 0, false);
	counters_answered(&c, 204, 5, false);
	counters_answered(&c, 302, 6, false);
	counters_answered(&c, 499, 10000, false);
	counters_answered(&c, 599, 10001, false);
	counters_answered(&c, 600, 1, false); /* no app can say that; it is in no class */
	assert_int_equal(c.n[COUNT_ANSWERED], 1);
	assert_int_equal(c.n[COUNT_ANSWERED + 1], 2);
	assert_int_equal(c.n[COUNT_ANSWERED + 2], 1);
	assert_int_equal(c.n[COUNT_ANSWERED + 3], 1);
	assert_int_equal(c.n[COUNT_ANSWERED + 4], 1);
	assert_int_equal(c.n[COUNT_DURATION], 3);		  /* up to 5 ms */
	assert_int_equal(c.n[COUNT_DURATION + 1], 1);		  /* 6 ms */
	assert_int_equal(c.n[COUNT_DURATION + DURATIONS - 2], 1); /* 10 s */
	assert_int_equal(c.n[COUNT_DURATION + DURATIONS - 1], 1); /* longer */
	for (size_t i = 0; i < DURATIONS; i++)
		all += c.n[COUNT_DURATION + i];
	assert_int_equal(all, 6); /* the WebSocket has no duration */
	assert_int_equal(c.n[COUNT_DURATION_MS], 0 + 5 + 6 + 10000 + 10001 + 1);
}

static void same_on_the_other_side(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct counters in = {0}, out;

	for (size_t i = 0; i < COUNTERS; i++)
		in.n[i] = i % 3 ? i * 1000003 : 0;
	in.n[COUNTERS - 1] = UINT64_MAX;
	for (uint32_t i = 0; i < GAUGES; i++)
		in.now[i] = i + 7;
	counters_put(&b, &in);
	struct reader rd = reader_of(b.data, b.len);
	counters_get(&rd, &out);
	assert_true(get_ok(&rd));
	assert_memory_equal(&in, &out, sizeof in);
	for (size_t n = 0; n < b.len; n++) {
		rd = reader_of(b.data, n);
		counters_get(&rd, &out);
		assert_false(get_ok(&rd));
	}
}

static void unknown_counter_is_malformed(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct counters out;

	put_u64(&b, 1ULL << COUNTERS);
	put_u64(&b, 1);
	for (size_t i = 0; i < GAUGES; i++)
		put_u32(&b, 0);
	struct reader rd = reader_of(b.data, b.len);
	counters_get(&rd, &out);
	assert_true(rd.bad);
}

static bool all_exist(void *ctx, const char *space)
{
	return true;
}

static bool none_exists(void *ctx, const char *space)
{
	return false;
}

/* What keeps an app awake. */
static void strangers_are_no_visitors(void **state)
{
	struct counters c = {.n[COUNT_REQUESTS] = 2, .n[COUNT_REFUSED + REFUSED_ACCESS] = 2};

	counters_answered(&c, 401, 0, false);
	counters_answered(&c, 404, 0, false);
	assert_false(counters_visited(&c));
	assert_false(counters_visited(&(struct counters){.n[COUNT_BYTES_OUT] = 1}));
	c.n[COUNT_REQUESTS]++;
	assert_true(counters_visited(&c)); /* one that is under way, of somebody who was let in */
	c.n[COUNT_REQUESTS] = 0;	   /* they came before the last report */
	assert_false(counters_visited(&c));
	counters_answered(&c, 200, 0, false);
	assert_true(counters_visited(&c));
	assert_true(counters_visited(&(struct counters){.n[COUNT_BYTES_OUT] = 1, .now[GAUGE_OPEN] = 1}));
}

static void rows_free(struct metrics_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(rows[i].space);
	free(rows);
}

static void sums_grow_and_gauges_go_with_their_proxy(void **state)
{
	struct metrics *m = metrics_new();
	struct counters c = {.n[COUNT_REQUESTS] = 5, .now[GAUGE_OPEN] = 2};
	size_t n;

	assert_false(metrics_has(m, "a/b"));
	metrics_add(m, 1, "a/b", &c);
	assert_true(metrics_has(m, "a/b"));
	const struct counters *sum = metrics_add(m, 2, "a/b", &c);
	assert_int_equal(sum->n[COUNT_REQUESTS], 10);
	assert_int_equal(sum->now[GAUGE_OPEN], 4);
	c.now[GAUGE_OPEN] = 1;
	sum = metrics_add(m, 2, "a/b", &c); /* says what is now, not what came */
	assert_int_equal(sum->now[GAUGE_OPEN], 3);
	metrics_add(m, 2, "", &c);
	metrics_peer_gone(m, 2);
	struct metrics_row *rows = metrics_rows(m, all_exist, NULL, &n);
	assert_int_equal(n, 2);
	assert_string_equal(rows[0].space, "");
	assert_string_equal(rows[1].space, "a/b");
	assert_int_equal(rows[1].sum.n[COUNT_REQUESTS], 15); /* what a proxy counted outlives it */
	assert_int_equal(rows[1].sum.now[GAUGE_OPEN], 2);
	rows_free(rows, n);
	metrics_peer_gone(m, 1);
	rows_free(metrics_rows(m, none_exists, NULL, &n), 1); /* deleted; what belongs to no Space stays */
	assert_int_equal(n, 1);
	metrics_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(answers_by_class),
	    cmocka_unit_test(same_on_the_other_side),
	    cmocka_unit_test(unknown_counter_is_malformed),
	    cmocka_unit_test(strangers_are_no_visitors),
	    cmocka_unit_test(sums_grow_and_gauges_go_with_their_proxy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
