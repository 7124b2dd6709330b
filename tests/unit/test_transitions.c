/* The stage table, crashes, adoption, and the build queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/build/queue.h"
#include "spaced/space/stage.h"

static enum space_stage walk(enum space_stage st, const enum stage_event *ev, size_t n)
{
	for (size_t i = 0; i < n; i++)
		st = stage_next(st, ev[i]);
	return st;
}
#define WALK(from, ...)                                                                                                \
	walk(from, (const enum stage_event[]){__VA_ARGS__},                                                            \
	     sizeof((const enum stage_event[]){__VA_ARGS__}) / sizeof(enum stage_event))

static void paths(void **state)
{
	(void)state;
	/* the way of a first push, of a second, of a failed one */
	assert_int_equal(WALK(STAGE_NO_APP_FILE, EV_BUILD), STAGE_BUILDING);
	assert_int_equal(WALK(STAGE_NO_APP_FILE, EV_BUILD, EV_START), STAGE_APP_STARTING);
	assert_int_equal(WALK(STAGE_NO_APP_FILE, EV_BUILD, EV_START, EV_HEALTHY), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_NO_APP_FILE, EV_BUILD, EV_PUBLISHED), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_NO_APP_FILE, EV_BUILD, EV_BUILD_FAILED), STAGE_BUILD_ERROR);
	assert_int_equal(WALK(STAGE_BUILD_ERROR, EV_BUILD, EV_CONFIG_ERROR), STAGE_CONFIG_ERROR);
	assert_int_equal(WALK(STAGE_CONFIG_ERROR, EV_BUILD, EV_START, EV_START_FAILED), STAGE_RUNTIME_ERROR);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD), STAGE_RUNNING_BUILDING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_START), STAGE_RUNNING_APP_STARTING);
	/* what runs goes on running */
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_BUILD_FAILED), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_NO_APP_FILE), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_CONFIG_ERROR), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_START, EV_START_FAILED), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_START, EV_HEALTHY), STAGE_RUNNING);
	/* crashes, also while a build goes on */
	assert_int_equal(WALK(STAGE_RUNNING, EV_CRASHED), STAGE_APP_STARTING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_CRASHED, EV_HEALTHY), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_GAVE_UP), STAGE_RUNTIME_ERROR);
	assert_int_equal(WALK(STAGE_RUNNING, EV_CRASHED, EV_GAVE_UP), STAGE_RUNTIME_ERROR);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_CRASHED), STAGE_BUILDING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_CRASHED, EV_HEALTHY), STAGE_RUNNING_BUILDING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_START, EV_CRASHED), STAGE_APP_STARTING);
	/* a build that fails while the release before is started again after a crash */
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_CRASHED, EV_CONFIG_ERROR, EV_HEALTHY), STAGE_RUNNING);
	assert_int_equal(WALK(STAGE_RUNNING, EV_BUILD, EV_CRASHED, EV_NO_APP_FILE, EV_HEALTHY), STAGE_RUNNING);
	/* a pause is left by a restart or a rebuild only */
	assert_int_equal(WALK(STAGE_RUNNING, EV_PAUSE), STAGE_PAUSED);
	assert_int_equal(WALK(STAGE_PAUSED, EV_BUILD_FAILED), STAGE_PAUSED);
	assert_int_equal(WALK(STAGE_PAUSED, EV_HEALTHY), STAGE_PAUSED);
	assert_int_equal(WALK(STAGE_PAUSED, EV_CRASHED), STAGE_PAUSED);
	assert_int_equal(WALK(STAGE_PAUSED, EV_START), STAGE_APP_STARTING);
	assert_int_equal(WALK(STAGE_PAUSED, EV_BUILD), STAGE_BUILDING);
}

static void deleting_is_final(void **state)
{
	(void)state;
	for (int ev = 0; ev < EV_COUNT; ev++)
		assert_int_equal(stage_next(STAGE_DELETING, (enum stage_event)ev), STAGE_DELETING);
	for (int st = 0; st <= STAGE_DELETING; st++) {
		assert_int_equal(stage_next((enum space_stage)st, EV_DELETE), STAGE_DELETING);
		if (st != STAGE_DELETING)
			assert_int_equal(stage_next((enum space_stage)st, EV_PAUSE), STAGE_PAUSED);
	}
}

static void restarts(void **state)
{
	struct crashes c = {0};
	uint64_t t = 1000;

	(void)state;
	assert_int_equal(crashes_note(&c, t), 1000);
	assert_int_equal(crashes_note(&c, t += 2000), 2000);
	assert_int_equal(crashes_note(&c, t += 2000), 4000);
	assert_int_equal(crashes_note(&c, t += 2000), 8000);
	assert_int_equal(crashes_note(&c, t += 2000), -1);
	/* one crash an hour is a slow app, not a broken one */
	c = (struct crashes){0};
	for (int i = 0; i < 100; i++)
		assert_int_equal(crashes_note(&c, t += 3600 * 1000), 1000);
}

static void adoption(void **state)
{
	static const uint32_t g[] = {3, 4, 5};

	(void)state;
	for (size_t n = 1; n <= 3; n++) { /* whatever starts, stops or drains beside it */
		assert_int_equal(stage_adopt(STAGE_RUNNING, g[n - 1], g, 3), n - 1);
		assert_int_equal(stage_adopt(STAGE_RUNNING_BUILDING, g[n - 1], g, 3), n - 1);
		assert_int_equal(stage_adopt(STAGE_RUNNING_APP_STARTING, g[n - 1], g, 3), n - 1);
	}
	assert_int_equal(stage_adopt(STAGE_RUNNING, g[0], g, 0), -1);
	assert_int_equal(stage_adopt(STAGE_RUNNING, 0, g, 3), -1);
	assert_int_equal(stage_adopt(STAGE_RUNNING, g[2] + 1, g, 3), -1);
	assert_int_equal(stage_adopt(STAGE_APP_STARTING, g[0], g, 1), -1);
	assert_int_equal(stage_adopt(STAGE_PAUSED, g[0], g, 1), -1);
	assert_int_equal(stage_adopt(STAGE_DELETING, g[0], g, 1), -1);
}

static void next_is(struct queue *q, const char *id)
{
	const struct queue_item *it = queue_next(q);

	if (!id) {
		assert_null(it);
		return;
	}
	assert_non_null(it);
	assert_string_equal(it->id, id);
}

static void queueing(void **state)
{
	struct queue q;

	(void)state;
	queue_init(&q, 1, 2);
	queue_push(&q, "a", "s1", true);
	queue_push(&q, "b", "s2", true);
	queue_push(&q, "c", "s3", true);
	queue_push(&q, "d", "s4", false);
	assert_int_equal(queue_position(&q, "a"), 1);
	assert_int_equal(queue_position(&q, "c"), 3);
	next_is(&q, "a");
	next_is(&q, "d"); /* only places code: does not wait for installs */
	next_is(&q, NULL);
	assert_int_equal(queue_position(&q, "a"), 0);
	assert_int_equal(queue_position(&q, "b"), 1);
	assert_int_equal(queue_position(&q, "c"), 2);
	queue_remove(&q, "b"); /* cancelled */
	queue_remove(&q, "a");
	next_is(&q, "c");
	queue_remove(&q, "c");
	/* one build of a Space at a time; an interrupted one goes first */
	queue_push(&q, "e", "s5", false);
	next_is(&q, "e");
	queue_push(&q, "f", "s5", false);
	queue_again(&q, "g", "s6", true);
	next_is(&q, "g");
	next_is(&q, NULL);
	queue_remove(&q, "e");
	next_is(&q, "f");
	assert_int_equal(queue_position(&q, "nobody"), 0);
	queue_release(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(paths),	cmocka_unit_test(deleting_is_final), cmocka_unit_test(restarts),
	    cmocka_unit_test(adoption), cmocka_unit_test(queueing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
