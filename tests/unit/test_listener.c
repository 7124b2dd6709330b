/* A public socket that comes with the start: is it the one that the configuration names? */
#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "spaced/role/state.h"

static int listener(const char *ip, uint16_t *port)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct sockaddr_in in = {.sin_family = AF_INET};
	bool six = strchr(ip, ':') != NULL;
	socklen_t len = six ? sizeof in6 : sizeof in;
	struct sockaddr *sa = six ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(inet_pton(sa->sa_family, ip, six ? (void *)&in6.sin6_addr : (void *)&in.sin_addr), 1);
	if (fd < 0 || bind(fd, sa, len) < 0)
		skip(); /* a host without IPv6 */
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, sa, &len), 0);
	*port = ntohs(six ? in6.sin6_port : in.sin_port);
	return fd;
}

static int fits(int fd, const char *host, uint16_t port)
{
	char where[64];
	struct err err = ERR_INIT;

	snprintf(where, sizeof where, "%s:%u", host, port);
	int r = state_check_listener(fd, where, &err);
	if (r < 0)
		assert_non_null(strstr(err.msg, "listens elsewhere"));
	return r;
}

static void one_address(void **state)
{
	uint16_t port;
	cleanup_close int fd = listener("127.0.0.1", &port);

	assert_int_equal(fits(fd, "127.0.0.1", port), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(fits(fd, "127.0.0.1", port ^ 1), -1);
	assert_int_equal(fits(fd, "127.0.0.2", port), -1);
	assert_int_equal(fits(fd, "0.0.0.0", port), -1);
	assert_int_equal(fits(fd, "[::1]", port), -1);
}

/* systemd makes [::] of a bare port; it takes IPv4 as well. */
static void all_addresses(void **state)
{
	uint16_t port;
	cleanup_close int four = listener("0.0.0.0", &port);

	assert_int_equal(fits(four, "0.0.0.0", port), 0);
	assert_int_equal(fits(four, "*", port), 0);
	assert_int_equal(fits(four, "127.0.0.1", port), -1);
	cleanup_close int six = listener("::", &port);
	assert_int_equal(fits(six, "[::]", port), 0);
	assert_int_equal(fits(six, "0.0.0.0", port), 0);
	assert_int_equal(fits(six, "[::1]", port), -1);
}

static void no_listener(void **state)
{
	struct err err = ERR_INIT;
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int pair[2];

	assert_int_equal(state_check_listener(fd, "127.0.0.1:1", &err), -1);
	assert_non_null(strstr(err.msg, "does not listen"));
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	assert_int_equal(state_check_listener(pair[0], "127.0.0.1:1", &err), -1);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_address),
	    cmocka_unit_test(all_addresses),
	    cmocka_unit_test(no_listener),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
