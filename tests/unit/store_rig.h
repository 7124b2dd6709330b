/* For the test_store*.c: a control store in a folder of each test's own. */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/names.h"
#include "spaced/store/store_int.h"

static char dir[64], db[96];
static struct err err;

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		err = ERR_INIT;                                                                                        \
		if ((call) != 0)                                                                                       \
			fail_msg("%s: %s", #call, err.msg);                                                            \
	} while (0)
#define FAILS(want, call)                                                                                              \
	do {                                                                                                           \
		err = ERR_INIT;                                                                                        \
		assert_int_equal((call), -1);                                                                          \
		if (err.code != (want))                                                                                \
			fail_msg("%s: code %d (%s)", #call, err.code, err.msg);                                        \
		assert_true(err.msg[0] != '\0');                                                                       \
	} while (0)

static inline struct store *reopen(struct store *s)
{
	store_close(s);
	err = ERR_INIT;
	s = store_open(db, &err);
	if (!s)
		fail_msg("open: %s", err.msg);
	return s;
}

static int set_up(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test_store.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(db, sizeof(db), "%s/spaced.db", dir);
	*state = store_open(db, &err);
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	store_close(*state);
	return io_remove_tree(AT_FDCWD, dir);
}

#endif
