/* Snapshots and deltas: what is served is always one whole version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/route_feed.h"

static enum feed_result set(struct route_feed *f, uint64_t version, const char *host, uint32_t generation)
{
	struct route r = {
	    .kind = ROUTE_APP, .port = 1, .nendpoints = 1, .endpoints[0] = {.name = "one", .generation = generation}};

	snprintf(r.host, sizeof r.host, "%s", host);
	return feed_set(f, version, &r);
}

/* The generation that is served, 0: no such host. */
static uint32_t served(const struct route_feed *f, const char *host)
{
	const struct target *t = route_lookup(f->served, STRZ(host));

	return t ? t->endpoints[0].generation : 0;
}

/* a and b at version 5. */
static int begin(void **state)
{
	struct route_feed *f = xcalloc(1, sizeof *f);

	feed_init(f);
	assert_int_equal(feed_reset(f, 5), FEED_WAIT);
	assert_int_equal(set(f, 5, "a", 1), FEED_WAIT);
	assert_int_equal(set(f, 5, "b", 1), FEED_WAIT);
	assert_int_equal(served(f, "a"), 0);
	assert_int_equal(feed_commit(f, 5, 2), FEED_DONE);
	assert_int_equal(served(f, "a"), 1);
	*state = f;
	return 0;
}

static int end(void **state)
{
	feed_release(*state);
	free(*state);
	return 0;
}

static void deltas_go_on(void **state)
{
	struct route_feed *f = *state;

	assert_int_equal(set(f, 6, "a", 2), FEED_DONE);
	assert_int_equal(feed_remove(f, 7, "b"), FEED_DONE);
	assert_int_equal(feed_remove(f, 8, "nobody"), FEED_DONE);
	assert_int_equal(served(f, "a"), 2);
	assert_int_equal(served(f, "b"), 0);
	assert_int_equal(feed_commit(f, 8, 1), FEED_DONE);
}

static void a_gap_changes_nothing_and_asks_once(void **state)
{
	struct route_feed *f = *state;

	assert_int_equal(set(f, 7, "a", 2), FEED_ASK);
	assert_int_equal(served(f, "a"), 1);
	/* What is on its way meanwhile, also what would fit. */
	assert_int_equal(set(f, 6, "a", 3), FEED_WAIT);
	assert_int_equal(feed_remove(f, 9, "a"), FEED_WAIT);
	assert_int_equal(feed_commit(f, 9, 1), FEED_WAIT);
	assert_int_equal(served(f, "a"), 1);
	assert_int_equal(feed_reset(f, 9), FEED_WAIT);
	assert_int_equal(set(f, 9, "a", 4), FEED_WAIT);
	assert_int_equal(served(f, "a"), 1);
	assert_int_equal(feed_commit(f, 9, 1), FEED_DONE);
	assert_int_equal(served(f, "a"), 4);
	assert_int_equal(served(f, "b"), 0);
	/* Healed: the next gap is asked for anew. */
	assert_int_equal(set(f, 10, "a", 5), FEED_DONE);
	assert_int_equal(set(f, 10, "a", 6), FEED_ASK);
	assert_int_equal(served(f, "a"), 5);
}

static void a_version_before_is_a_gap(void **state)
{
	assert_int_equal(set(*state, 5, "a", 2), FEED_ASK);
	assert_int_equal(served(*state, "a"), 1);
}

static void a_partial_snapshot_is_never_served(void **state)
{
	struct route_feed *f = *state;

	feed_reset(f, 8);
	set(f, 8, "a", 2);
	/* One route of it is missing, or it is one of another version. */
	assert_int_equal(feed_commit(f, 8, 2), FEED_ASK);
	assert_int_equal(served(f, "a"), 1);
	assert_int_equal(served(f, "b"), 1);
	feed_reset(f, 9);
	set(f, 9, "a", 2);
	assert_int_equal(feed_commit(f, 9, 1), FEED_DONE);
	assert_int_equal(served(f, "b"), 0);
	feed_reset(f, 12);
	assert_int_equal(set(f, 11, "a", 3), FEED_ASK);
	assert_int_equal(served(f, "a"), 2);
	/* The sender goes in the middle: the next one's deltas go on from what is served. */
	feed_reset(f, 13);
	set(f, 13, "a", 3);
	feed_cut(f);
	assert_int_equal(served(f, "a"), 2);
	assert_int_equal(set(f, 10, "a", 4), FEED_DONE);
}

static void a_sender_that_cannot_mend_it_is_broken(void **state)
{
	struct route_feed *f = *state;

	assert_int_equal(feed_commit(f, 5, 3), FEED_ASK);
	feed_reset(f, 6);
	assert_int_equal(feed_commit(f, 6, 1), FEED_GARBAGE);
	assert_int_equal(served(f, "a"), 1);
}

/* A change costs what it costs in a small table: nothing goes over the others. */
static void one_change_touches_one_target(void **state)
{
	struct route_feed *f = *state;
	char host[40];

	feed_reset(f, 10);
	for (int i = 0; i < 10000; i++) {
		snprintf(host, sizeof host, "s%d.test", i);
		set(f, 10, host, 1);
	}
	assert_int_equal(feed_commit(f, 10, 10000), FEED_DONE);
	const struct target *neighbour = route_lookup(f->served, STR("s7.test"));
	for (uint32_t i = 1; i <= 1000; i++) {
		assert_int_equal(set(f, 10 + i, "s8.test", 1 + i), FEED_DONE);
		assert_int_equal(served(f, "s8.test"), 1 + i);
	}
	assert_ptr_equal(route_lookup(f->served, STR("s7.test")), neighbour);
	assert_int_equal(route_table_size(f->served), 10000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(deltas_go_on),
	    TEST(a_gap_changes_nothing_and_asks_once),
	    TEST(a_version_before_is_a_gap),
	    TEST(a_partial_snapshot_is_never_served),
	    TEST(a_sender_that_cannot_mend_it_is_broken),
	    TEST(one_change_touches_one_target),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
