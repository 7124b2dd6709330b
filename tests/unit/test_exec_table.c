/* Pid 1's table of commands: the end of one is told, also when the asker does not listen for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/contain.h"

#define FILLER 1000

static int sv[2];
static struct exec_table table;

static int set_up(void **unused)
{
	table = (struct exec_table){0};
	if (frame_pair(sv) < 0)
		return -1;
	io_set_nonblock(sv[0], true);
	return io_set_nonblock(sv[1], true);
}

static int tear_down(void **unused)
{
	close(sv[0]);
	if (sv[1] >= 0)
		close(sv[1]);
	return 0;
}

static void fill(void)
{
	int r;

	do
		r = frame_send(sv[0], FILLER, 1, NULL, 0, NULL, 0);
	while (r == 0);
	assert_int_equal(r, -EAGAIN);
}

/* What is there, but for the filler; the number of ends. */
static int drain(uint32_t ids[], uint32_t statuses[])
{
	struct frame f;
	int n = 0;

	while (frame_recv(sv[1], &f) == 1) {
		if (f.type == EXEC_ENDED) {
			struct reader r = reader_of(f.payload, f.len);

			ids[n] = f.id;
			statuses[n++] = get_u32(&r);
			assert_true(get_ok(&r));
		}
		frame_release(&f);
	}
	return n;
}

static void run(size_t slot, uint32_t id, pid_t pid)
{
	table.run[slot].id = id;
	table.run[slot].pid = pid;
}

static void test_told_at_once(void **unused)
{
	uint32_t ids[EXEC_MAX] = {0}, statuses[EXEC_MAX] = {0};

	run(0, 7, 100);
	exec_reaped(&table, sv[0], 99, 0); /* some orphan */
	assert_int_equal(drain(ids, statuses), 0);
	exec_reaped(&table, sv[0], 100, 3 << 8);
	assert_int_equal(drain(ids, statuses), 1);
	assert_int_equal(ids[0], 7);
	assert_int_equal(statuses[0], 3);
	assert_false(exec_report(&table, sv[0]));
	assert_int_equal(drain(ids, statuses), 0); /* once */
}

static void test_told_when_there_is_room(void **unused)
{
	uint32_t ids[EXEC_MAX] = {0}, statuses[EXEC_MAX] = {0};

	fill();
	run(0, 7, 100);
	run(1, 8, 101);
	exec_reaped(&table, sv[0], 100, SIGKILL);
	exec_reaped(&table, sv[0], 101, 0);
	assert_true(exec_report(&table, sv[0]));
	assert_int_equal(drain(ids, statuses), 0);
	assert_false(exec_report(&table, sv[0]));
	assert_int_equal(drain(ids, statuses), 2);
	assert_int_equal(ids[0], 7);
	assert_int_equal(statuses[0], 128 + SIGKILL);
	assert_int_equal(ids[1], 8);
	assert_int_equal(statuses[1], 0);
}

/* All places wait for an asker that does not listen: no further command until it does. */
static void test_no_place_until_then(void **unused)
{
	static char true_[] = "true";
	char *argv[] = {true_, NULL};
	const struct sandbox_spec spec = {.argv = argv};
	const struct contain c = {.spec = &spec};
	const struct exec_request q = {.argv = argv};
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f = {0};

	fill();
	for (size_t i = 0; i < EXEC_MAX; i++) {
		run(i, (uint32_t)i + 1, 100 + (pid_t)i);
		exec_reaped(&table, sv[0], 100 + (pid_t)i, 0);
	}
	exec_request_encode(&q, &b);
	assert_int_equal(frame_send(sv[1], EXEC_RUN, 50, b.data, b.len, NULL, 0), 0);
	while (frame_recv(sv[1], &f) == 1) /* the filler: there is room for one answer again */
		frame_release(&f);
	assert_true(exec_serve(&c, &table, sv[0]));
	assert_int_equal(frame_recv(sv[1], &f), 1);
	assert_int_equal(f.type, EXEC_FAILED);
	assert_int_equal(f.id, 50);
	frame_release(&f);
}

static void test_nobody_listens(void **unused)
{
	fill();
	run(0, 7, 100);
	exec_reaped(&table, sv[0], 100, 0);
	assert_true(exec_report(&table, sv[0]));
	close(sv[1]);
	sv[1] = -1;
	assert_false(exec_report(&table, sv[0]));
	run(0, 8, 101);
	exec_reaped(&table, -1, 101, 0);
	assert_false(exec_report(&table, -1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_told_at_once, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_told_when_there_is_room, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_place_until_then, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_nobody_listens, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
