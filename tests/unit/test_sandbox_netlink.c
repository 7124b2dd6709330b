/* Lists of the kernel that change while they are read: somebody's links and rules always do on a busy host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/egress.h"
#include "sandbox/nf.h"
#include "sandbox/rtnl.h"

#define PAIRS 60 /* of links: more than one answer of the kernel holds */
#define CHAINS 400
#define ROUNDS 200

static void count_link(void *ctx, const struct rtnl_link *l)
{
	*(unsigned *)ctx += strncmp(l->name, "kept", 4) == 0;
}

/* Makes and removes a link, or a table, until the end of the test. */
static pid_t meddler(bool links)
{
	pid_t parent = getpid(), pid = fork();
	struct err err = ERR_INIT;
	struct rtnl n;

	if (pid != 0)
		return pid;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || rtnl_open(&n, &err) < 0)
		_exit(1);
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (;;) {
		int r =
		    links ? rtnl_veth(&n, "comes", "goes", here, 1500, &err) : egress_nft("add table ip comes\n", &err);
		if (r == 0)
			r = links ? rtnl_link_delete(&n, "comes", &err) : egress_nft("delete table ip comes\n", &err);
		if (r < 0)
			_exit(1);
	}
}

static void stop(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status)); /* it meddled to the end */
}

static void test_links(void **state)
{
	cleanup_close int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct err err = ERR_INIT;
	struct rtnl n;

	if (*state)
		skip();
	assert_int_equal(rtnl_open(&n, &err), 0);
	for (unsigned i = 0; i < PAIRS; i++) {
		char name[2][16];
		snprintf(name[0], sizeof name[0], "kept%ua", i);
		snprintf(name[1], sizeof name[1], "kept%ub", i);
		assert_int_equal(rtnl_veth(&n, name[0], name[1], here, 1500, &err), 0);
	}
	pid_t pid = meddler(true);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned found = 0;
		if (rtnl_links(&n, count_link, &found, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(found, 2 * PAIRS);
	}
	stop(pid);
	rtnl_close(&n);
}

static void test_chains_that_drop(void **state)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	struct nf n;

	if (*state)
		skip();
	buf_adds(&text, "add table ip kept\n");
	for (unsigned i = 0; i < CHAINS; i++)
		buf_addf(&text, "add chain ip kept plain%u\n", i);
	buf_adds(&text, "add chain ip kept last { type filter hook forward priority 0; policy drop; }\n"
			"add rule ip kept last accept\n");
	assert_int_equal(egress_nft(text.data, &err), 0);
	assert_int_equal(nf_open(&n, &err), 0);
	pid_t pid = meddler(false);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct nf_forward *found;
		size_t count;
		if (nf_forward_drops(&n, &found, &count, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(count, 1);
		free(found);
	}
	stop(pid);
	nf_close(&n);
}

static int own_network(void **state)
{
	static int missing;

	if (unshare(CLONE_NEWNET) < 0)
		*state = &missing;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_links),
	    cmocka_unit_test(test_chains_that_drop),
	};

	return cmocka_run_group_tests(tests, own_network, NULL);
}
