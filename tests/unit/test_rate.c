/* Request rates: five seconds' worth at once, then as they come in; tables that do not grow; one account for all processes. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/rate.h"
#include "proxy/worker.h"

#define START 1000000 /* ms: some time after the machine's start */

static uint32_t take(struct rates *r, uint64_t who, uint32_t rate, uint64_t at)
{
	return rates_take(r, RATE_CLIENT, who, rate, START + at);
}

/* How many pass at that moment. */
static unsigned pass(struct rates *r, uint64_t who, uint32_t rate, uint64_t at)
{
	unsigned n = 0;

	while (take(r, who, rate, at) == 0)
		n++;
	return n;
}

static void burst_then_rate(void **state)
{
	struct rates *r = rates_map(-1);

	assert_int_equal(pass(r, 1, 10, 0), 50);
	assert_int_equal(take(r, 1, 10, 0), 100); /* until the next one */
	assert_int_equal(take(r, 1, 10, 99), 1);
	assert_int_equal(pass(r, 1, 10, 100), 1);
	assert_int_equal(pass(r, 1, 10, 1100), 10);
	assert_int_equal(pass(r, 1, 10, 1000000), 50); /* it never holds more */
	assert_int_equal(pass(r, 2, 1, 0), 5);
	assert_int_equal(take(r, 2, 1, 0), 1000);
	assert_int_equal(pass(r, 3, RATE_MAX, 0), 5 * RATE_MAX);
}

static void each_for_itself(void **state)
{
	struct rates *r = rates_map(-1);

	assert_int_equal(pass(r, 1, 10, 0), 50);
	assert_int_equal(pass(r, 2, 10, 0), 50);
	assert_int_equal(rates_take(r, RATE_SPACE, 1, 10, START), 0); /* a Space is no client */
	assert_int_equal(pass(r, 1, 20, 0), 0);			      /* the same client under another limit */
}

/* Many that come once do not push out the one that is limited: what they leave is full again. */
static void the_fullest_goes(void **state)
{
	struct rates *r = rates_map(-1);

	assert_int_equal(pass(r, 1, 10, 0), 50);
	for (uint64_t who = 2; who < 200000; who++)
		assert_int_equal(take(r, who, 10, 0), 0);
	assert_int_equal(pass(r, 1, 10, 0), 0);
}

static void shared_by_fork_and_by_file(void **state)
{
	struct rates *r = rates_map(-1);
	int fd = rates_create(), status;

	assert_true(fd >= 0);
	struct rates *a = rates_map(fd), *b = rates_map(fd);
	assert_true(a && b && a != b);
	assert_true(ftruncate(fd, 0) < 0); /* or the others would die of SIGBUS */
	close(fd);
	assert_int_equal(pass(a, 1, 10, 0), 50);
	assert_int_equal(pass(b, 1, 10, 0), 0);
	assert_true(rates_who(a, "x", 1) == rates_who(b, "x", 1));
	assert_true(rates_who(a, "x", 1) != rates_who(a, "y", 1));
	assert_true(rates_who(a, "x", 1) != rates_who(r, "x", 1)); /* nobody can aim at a place */

	pid_t child[2];
	int pipes[2][2];
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(pipes[i]), 0);
		child[i] = fork();
		if (child[i] == 0) {
			unsigned n = pass(r, 1, 10000, 0);
			_exit(write(pipes[i][1], &n, sizeof n) != sizeof n);
		}
	}
	unsigned sum = 0, n;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, 0);
		assert_int_equal(read(pipes[i][0], &n, sizeof n), sizeof n);
		sum += n;
	}
	assert_int_equal(sum, 50000); /* also at the same time none is counted twice or not at all */
}

static bool same_client(const char *a, const char *b)
{
	struct in6_addr key[2];

	for (int i = 0; i < 2; i++) {
		const char *text = i ? b : a;
		struct in6_addr address = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
		bool v6 = strchr(text, ':') != NULL;
		assert_int_equal(
		    inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? &address.s6_addr[0] : &address.s6_addr[12]), 1);
		peer_key(&address, &key[i]);
	}
	return memcmp(&key[0], &key[1], sizeof key[0]) == 0;
}

static void one_client(void **state)
{
	assert_true(same_client("192.0.2.1", "192.0.2.1"));
	assert_false(same_client("192.0.2.1", "192.0.2.2"));
	assert_true(same_client("192.0.2.1", "::ffff:192.0.2.1"));
	assert_true(same_client("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
	assert_false(same_client("2001:db8:1:2::1", "2001:db8:1:3::1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(burst_then_rate),	cmocka_unit_test(each_for_itself),
	    cmocka_unit_test(the_fullest_goes), cmocka_unit_test(shared_by_fork_and_by_file),
	    cmocka_unit_test(one_client),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
