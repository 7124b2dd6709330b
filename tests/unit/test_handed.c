/* Descriptors that come with the start: their names, and the way through an exec. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "spaced/role/handed.h"

static void names(void **state)
{
	struct handed h;
	struct err err = ERR_INIT;

	assert_int_equal(handed_parse(&h, "3", "public:lock:proxy.12", &err), 0);
	assert_int_equal(h.n, 3);
	assert_int_equal(handed_take(&h, "lock"), 4);
	assert_int_equal(handed_take(&h, "lock"), -1);
	assert_int_equal(handed_take(&h, "proxy.12"), 5);
	assert_int_equal(handed_take(&h, "public"), 3);
	/* Of systemd without names, and with fewer than there are descriptors. */
	assert_int_equal(handed_parse(&h, "2", NULL, &err), 0);
	assert_string_equal(h.at[1].name, "");
	assert_int_equal(handed_parse(&h, "3", "a::", &err), 0);
	assert_string_equal(h.at[0].name, "a");
	assert_string_equal(h.at[2].name, "");
	assert_int_equal(handed_parse(&h, "2", "a", &err), 0);
	assert_string_equal(h.at[1].name, "");
	assert_int_equal(handed_parse(&h, "0", "", &err), 0);
	assert_int_equal(h.n, 0);
}

static void nonsense(void **state)
{
	static const char *const counts[] = {"", "x", "-1", "3x", " 3", "101", "99999999999999999999", NULL};
	struct handed h;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		assert_int_equal(handed_parse(&h, counts[i], "a", &err), -1);
	assert_int_equal(handed_parse(&h, "1", "a-name-that-is-longer-than-any-of-ours", &err), -1);
	assert_non_null(strstr(err.msg, "LISTEN_FDNAMES"));
}

static void of_another_process(void **state)
{
	struct handed h = {.n = 7};
	struct err err = ERR_INIT;

	setenv("LISTEN_PID", "1", 1);
	setenv("LISTEN_FDS", "1", 1);
	assert_int_equal(handed_receive(&h, &err), 0);
	assert_int_equal(h.n, 0);
	assert_non_null(getenv("LISTEN_FDS")); /* not ours to take */
	unsetenv("LISTEN_PID");
	assert_int_equal(handed_receive(&h, &err), 0);
	assert_int_equal(h.n, 0);
}

static void not_there(void **state)
{
	char pid[16];
	struct handed h;
	struct err err = ERR_INIT;

	snprintf(pid, sizeof pid, "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "50", 1);
	assert_int_equal(handed_receive(&h, &err), -1);
	assert_null(getenv("LISTEN_FDS"));
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* What handed_exec() gives must be what handed_receive() finds: this program again, as `received` below. */
static void through_an_exec(void **state)
{
	int a[2], b[2], status;
	struct handed h = {0};
	struct err err = ERR_INIT;
	char ino[2][32];

	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	handed_add(&h, "second", b[1]); /* in another order than their numbers have */
	handed_add(&h, "first", a[0]);
	snprintf(ino[0], sizeof ino[0], "%ju", (uintmax_t)inode(b[1]));
	snprintf(ino[1], sizeof ino[1], "%ju", (uintmax_t)inode(a[0]));
	char *argv[] = {"test_handed", "received", ino[0], ino[1], NULL};
	/* It fails: all is as it was. */
	assert_int_equal(handed_exec(&h, "/nowhere", argv, &err), -1);
	assert_non_null(strstr(err.msg, "/nowhere"));
	assert_null(getenv("LISTEN_FDS"));
	assert_int_equal(inode(b[1]), strtoumax(ino[0], NULL, 10));
	assert_int_equal(inode(a[0]), strtoumax(ino[1], NULL, 10));
	assert_true(fcntl(a[0], F_GETFD) & FD_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		handed_exec(&h, "/proc/self/exe", argv, &err);
		_exit(9);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int received(char **argv)
{
	struct handed h;
	struct err err = ERR_INIT;

	if (handed_receive(&h, &err) < 0 || h.n != 2 || getenv("LISTEN_PID") || getenv("LISTEN_FDNAMES"))
		return 2;
	int second = handed_take(&h, "second"), first = handed_take(&h, "first");
	if (second != 3 || first != 4 || !(fcntl(first, F_GETFD) & FD_CLOEXEC) || fcntl(5, F_GETFD) >= 0)
		return 3;
	return inode(second) != strtoumax(argv[2], NULL, 10) || inode(first) != strtoumax(argv[3], NULL, 10);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names),	 cmocka_unit_test(nonsense),	    cmocka_unit_test(of_another_process),
	    cmocka_unit_test(not_there), cmocka_unit_test(through_an_exec),
	};

	if (argc == 4 && strcmp(argv[1], "received") == 0)
		return received(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
