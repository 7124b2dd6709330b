/* The sleep ladder's deciders. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/space/sleep.h"
#include "spaced/space/stage.h"

#define S 1000ULL

static const struct {
	const char *name;
	struct sleep_rule rule;
	struct sleep_view view;
	enum sleep_step step;
} cases[] = {
    {"just visited", {60 * S, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 0}, SLEEP_STAY},
    {"not long enough", {60 * S, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 60 * S - 1}, SLEEP_STAY},
    {"idle", {60 * S, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 60 * S}, SLEEP_FREEZE},
    {"frozen", {60 * S, 600 * S, 3600 * S}, {SLEEP_FROZEN, false, 600 * S - 1}, SLEEP_STAY},
    {"frozen for a while", {60 * S, 600 * S, 3600 * S}, {SLEEP_FROZEN, false, 600 * S}, SLEEP_PAGE_OUT},
    {"paged out", {60 * S, 600 * S, 3600 * S}, {SLEEP_FROZEN, true, 600 * S}, SLEEP_STAY},
    {"paged out for long", {60 * S, 600 * S, 3600 * S}, {SLEEP_FROZEN, true, 3600 * S}, SLEEP_STOP},
    {"no swap", {60 * S, 0, 3600 * S}, {SLEEP_FROZEN, false, 600 * S}, SLEEP_STAY},
    {"what runs is not paged out", {0, 600 * S, 0}, {SLEEP_AWAKE, false, 600 * S}, SLEEP_STAY},
    {"frozen for long", {60 * S, 600 * S, 3600 * S}, {SLEEP_FROZEN, false, 3600 * S}, SLEEP_STOP},
    {"idle for long and never frozen", {60 * S, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 3600 * S}, SLEEP_STOP},
    {"no freezer", {0, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 600 * S}, SLEEP_STAY},
    {"no freezer, for long", {0, 600 * S, 3600 * S}, {SLEEP_AWAKE, false, 3600 * S}, SLEEP_STOP},
    {"never", {0, 0, 0}, {SLEEP_AWAKE, false, UINT64_MAX}, SLEEP_STAY},
    {"frozen, never stopped", {60 * S, 0, 0}, {SLEEP_FROZEN, false, UINT64_MAX}, SLEEP_STAY},
    {"on its way down", {60 * S, 600 * S, 3600 * S}, {SLEEP_QUIETING, false, 7200 * S}, SLEEP_STAY},
    {"being frozen", {60 * S, 600 * S, 3600 * S}, {SLEEP_FREEZING, false, 7200 * S}, SLEEP_STAY},
    {"being thawed", {60 * S, 600 * S, 3600 * S}, {SLEEP_THAWING, false, 7200 * S}, SLEEP_STAY},
};

static void ladder(void **state)
{
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (sleep_decide(&cases[i].rule, &cases[i].view) != cases[i].step)
			fail_msg("%s", cases[i].name);
}

static void whose_rule(void **state)
{
	struct sleep_host host = {60, 600, 172800, true, true};
	struct sleep_rule r = sleep_rule_of(&host, 0);
	assert_true(r.freeze_ms == 60 * S && r.page_out_ms == 600 * S && r.stop_ms == 172800 * S);
	r = sleep_rule_of(&host, 300);
	assert_true(r.freeze_ms == 60 * S && r.stop_ms == 300 * S);
	r = sleep_rule_of(&host, -1);
	assert_true(r.freeze_ms == 0 && r.page_out_ms == 0 && r.stop_ms == 0);
	host = (struct sleep_host){60, 600, 0, false, false};
	r = sleep_rule_of(&host, 0);
	assert_true(r.freeze_ms == 0 && r.page_out_ms == 0 && r.stop_ms == 0);
	r = sleep_rule_of(&host, 4000000);
	assert_true(r.stop_ms == 4000000 * S);
}

static void longest_frozen_goes_first(void **state)
{
	const struct sleep_view v[] = {{SLEEP_AWAKE, false, 900},
				       {SLEEP_FROZEN, false, 10},
				       {SLEEP_FROZEN, false, 30},
				       {SLEEP_THAWING, false, 99},
				       {SLEEP_FROZEN, false, 20}};

	assert_int_equal(sleep_victim(v, 5), 2);
	assert_int_equal(sleep_victim(v, 2), 1);
	assert_int_equal(sleep_victim(v, 1), -1);
	assert_int_equal(sleep_victim(v, 0), -1);
}

static void stages(void **state)
{
	const uint32_t g[] = {3, 4};

	assert_int_equal(stage_next(STAGE_RUNNING, EV_SLEEP), STAGE_SLEEPING);
	/* A deploy under way keeps it awake, and what is broken or paused does not sleep. */
	assert_int_equal(stage_next(STAGE_RUNNING_BUILDING, EV_SLEEP), STAGE_RUNNING_BUILDING);
	assert_int_equal(stage_next(STAGE_APP_STARTING, EV_SLEEP), STAGE_APP_STARTING);
	assert_int_equal(stage_next(STAGE_RUNTIME_ERROR, EV_SLEEP), STAGE_RUNTIME_ERROR);
	assert_int_equal(stage_next(STAGE_PAUSED, EV_SLEEP), STAGE_PAUSED);
	assert_int_equal(stage_next(STAGE_PAUSED, EV_WAKE), STAGE_PAUSED);
	assert_int_equal(stage_next(STAGE_SLEEPING, EV_WAKE), STAGE_RUNNING);
	assert_int_equal(stage_next(STAGE_SLEEPING, EV_START), STAGE_APP_STARTING);
	assert_int_equal(stage_next(STAGE_SLEEPING, EV_BUILD), STAGE_BUILDING);
	assert_int_equal(stage_next(STAGE_SLEEPING, EV_PAUSE), STAGE_PAUSED);
	assert_false(stage_serves(STAGE_SLEEPING));
	/* One that is frozen when control comes back is adopted; one that is not there is not missed. */
	assert_int_equal(stage_adopt(STAGE_SLEEPING, 4, g, 2), 1);
	assert_int_equal(stage_adopt(STAGE_SLEEPING, 0, g, 2), -1);
}

/* Swap that was full is tried again, by one a minute, until it takes something. */
static void full_swap(void **state)
{
	struct swap_view v = {.full = false};
	uint64_t now = 5 * S;

	assert_true(swap_may(&v, now));
	swap_tried(&v, now);
	assert_true(swap_may(&v, now)); /* others, too, while it has room */
	assert_true(swap_ended(&v, ENOSPC, now));
	assert_true(swap_ended(&v, ENOSPC, now));
	assert_false(swap_may(&v, now + SWAP_RETRY_MS - 1));
	now += SWAP_RETRY_MS;
	assert_true(swap_may(&v, now));
	swap_tried(&v, now);
	assert_false(swap_may(&v, now)); /* one only */
	assert_true(swap_ended(&v, ENOSPC, now + S));
	now += SWAP_RETRY_MS + S;
	assert_true(swap_may(&v, now));
	swap_tried(&v, now);
	assert_false(swap_ended(&v, ECANCELED, now)); /* a visit came first: nothing is known */
	assert_false(swap_may(&v, now));
	now += SWAP_RETRY_MS;
	swap_tried(&v, now);
	assert_false(swap_ended(&v, 0, now));
	assert_true(swap_may(&v, now));
	assert_false(swap_ended(&v, ENOTSUP, now));
	assert_false(swap_may(&v, UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(ladder), cmocka_unit_test(whose_rule),
					   cmocka_unit_test(longest_frozen_goes_first), cmocka_unit_test(stages),
					   cmocka_unit_test(full_swap)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
