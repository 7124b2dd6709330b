/* The parent and a role that does not listen any more: it is not waited for. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/frame.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/role/parent_int.h"

#define PATIENCE_S 60

static void a_role_that_does_not_read_is_ended(void **state)
{
	struct parent p = {.nchildren = 1, .children[0] = {.role = ROLE_CONTROL}};
	struct child *c = &p.children[0];
	int pair[2], status = 0;
	unsigned n = 0;

	log_init("parent", LOG_LEVEL_ERROR);
	assert_int_equal(frame_pair(pair), 0);
	c->pid = fork();
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	child_link(c, pair[0]);
	uint64_t until = io_now_ms() + PATIENCE_S * 1000;
	alarm(2 * PATIENCE_S); /* to wait is what it must not do */
	for (; waitpid(c->pid, &status, WNOHANG) == 0; n++) {
		assert_true(io_now_ms() < until); /* it is killed at once, and may take its time to end */
		control_answer(&p, 1, false, "no");
	}
	alarm(0);
	assert_true(n > 10);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(pair[0]);
	close(pair[1]);
}

/* One that has gone is no matter: its end is told by itself. */
static void a_role_that_has_gone(void **state)
{
	struct parent p = {.nchildren = 1, .children[0] = {.role = ROLE_CONTROL, .link = -1}};
	int pair[2];

	control_answer(&p, 1, true, "");
	assert_int_equal(frame_pair(pair), 0);
	child_link(&p.children[0], pair[0]);
	close(pair[1]);
	control_answer(&p, 1, true, "");
	child_send_fd(&p.children[0], LINK_PROXY, pair[0]);
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_role_that_does_not_read_is_ended),
	    cmocka_unit_test(a_role_that_has_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
