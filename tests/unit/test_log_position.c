/* Where a follower of a log says he is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "spaced/api/log_position.h"

#define SPACE "0123456789abcdef01234567"

static const struct {
	const char *text;
	bool ok;
	const char *name;
	uint64_t offset;
} positions[] = {
    {"run-" SPACE "-7:0", true, "run-" SPACE "-7", 0},
    {"build-89ab:123456789012345678", true, "build-89ab", 123456789012345678},
    {":12", true, "", 12},
    {"", false, NULL, 0},
    {"run-1", false, NULL, 0},
    {"run-1:", false, NULL, 0},
    {"run-1:01", false, NULL, 0},
    {"run-1:1x", false, NULL, 0},
    {"run-1:-1", false, NULL, 0},
    {"run-1:1234567890123456789", false, NULL, 0},
    {"../x:1", false, NULL, 0},
    {"run.1:1", false, NULL, 0},
    {"0123456789012345678901234567890123456789012345678901234567890123:1", false, NULL, 0},
};

static void parse(void **state)
{
	struct log_position p;

	(void)state;
	for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
		assert_int_equal(log_position_parse(STRZ(positions[i].text), &p), positions[i].ok);
		if (!positions[i].ok)
			continue;
		assert_string_equal(p.name, positions[i].name);
		assert_true(p.offset == positions[i].offset);
	}
}

static void written(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	log_position_add(&b, "/state/logs/run-" SPACE "-7.log", 42);
	assert_string_equal(b.data, "run-" SPACE "-7:42");
}

static void whose(void **state)
{
	struct log_position p = {.name = "run-" SPACE "-7"};
	uint32_t generation = 0;
	char id[STORE_ID];

	(void)state;
	assert_true(log_position_run(&p, SPACE, &generation));
	assert_int_equal(generation, 7);
	assert_false(log_position_run(&p, "1123456789abcdef01234567", &generation));
	assert_false(log_position_build(&p, id));
	p = (struct log_position){.name = "run-" SPACE "-4294967296"};
	assert_false(log_position_run(&p, SPACE, &generation));
	p = (struct log_position){.name = "build-89abcdef"};
	assert_true(log_position_build(&p, id));
	assert_string_equal(id, "89abcdef");
	assert_false(log_position_run(&p, SPACE, &generation));
	p = (struct log_position){.name = "build-0123456789abcdef0123456789abcdef0123456789abcdef"};
	assert_false(log_position_build(&p, id));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(parse),
	    cmocka_unit_test(written),
	    cmocka_unit_test(whose),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
