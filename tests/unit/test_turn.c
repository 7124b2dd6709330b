/* Whose turn it is to start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/space/turn.h"

static void check(struct turns *q, struct turn *t, size_t n, const char *const *order)
{
	turns_sort(q, t, n);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(t[i].space, order[i]);
}

static void who_came_first(void **state)
{
	struct turn t[] = {
	    {.space = "a/3", .arrived = 3}, {.space = "a/1", .arrived = 1}, {.space = "a/2", .arrived = 2}};
	struct turns q = {0};

	check(&q, t, 3, (const char *const[]){"a/1", "a/2", "a/3"});
	check(&q, t, 0, NULL);
}

/* However many one owner has before; a name that begins like another's is another's. */
static void owners_take_turns(void **state)
{
	struct turn t[] = {{.space = "a/1", .arrived = 1},  {.space = "a/2", .arrived = 2},
			   {.space = "a/3", .arrived = 3},  {.space = "b/1", .arrived = 9},
			   {.space = "ab/1", .arrived = 8}, {.space = "b/2", .arrived = 10}};
	struct turns q = {0};

	check(&q, t, 6, (const char *const[]){"a/1", "ab/1", "b/1", "a/2", "b/2", "a/3"});
}

/* Whose was the last turn waits for the next round, also when the others come later; who has had many waits no longer for it. */
static void turns_are_remembered(void **state)
{
	struct turn t[] = {{.space = "a/1", .arrived = 1},
			   {.space = "a/2", .arrived = 2},
			   {.space = "a/3", .arrived = 3},
			   {.space = "b/1", .arrived = 4}};
	struct turn later[] = {{.space = "a/4", .arrived = 5}, {.space = "c/1", .arrived = 6}};
	struct turns q = {0};

	turns_sort(&q, t, 3);
	turns_take(&q, &t[0]);
	check(&q, t + 1, 3, (const char *const[]){"b/1", "a/2", "a/3"});
	for (unsigned i = 1; i < 4; i++)
		turns_take(&q, &t[i]);
	check(&q, later, 2, (const char *const[]){"c/1", "a/4"});
	turns_take(&q, &later[0]);
	turns_take(&q, &later[1]);
	assert_int_equal(q.n, 1);
	turns_release(&q);
}

/* Of the same owner, and of others in the same round; not before those of another's earlier round. */
static void what_was_just_built_goes_first(void **state)
{
	struct turn t[] = {{.space = "a/1", .arrived = 1},
			   {.space = "a/2", .arrived = 2},
			   {.space = "a/3", .arrived = 3, .built = true},
			   {.space = "b/1", .arrived = 4}};
	struct turns q = {0};

	check(&q, t, 4, (const char *const[]){"a/3", "b/1", "a/1", "a/2"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_came_first),
	    cmocka_unit_test(owners_take_turns),
	    cmocka_unit_test(turns_are_remembered),
	    cmocka_unit_test(what_was_just_built_goes_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
