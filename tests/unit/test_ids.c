/* What a user namespace's map and /etc/subuid give (sandbox/ids.h), and processes that are found again (pidnote.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/ids.h"
#include "sandbox/pidnote.h"

static void kinds(void **state)
{
	(void)state;
	assert_int_equal(ids_kind_of("         0          0 4294967295\n"), IDS_ALL);
	assert_int_equal(ids_kind_of("0 0 65536\n65536 65536 4294901759\n"), IDS_ALL);
	assert_int_equal(ids_kind_of("0 1000 1\n65534 100000 65536\n"), IDS_RANGE);
	assert_int_equal(ids_kind_of("65534 100000 65536\n0 1000 1\n"), IDS_RANGE);
	/* a container that has many, though not what the host has */
	assert_int_equal(ids_kind_of("0 1000000 1000000000\n"), IDS_RANGE);
	assert_int_equal(ids_kind_of("0 1000 1\n"), IDS_ONE);
	assert_int_equal(ids_kind_of("0 1000 1\n65534 100000 100\n"), IDS_ONE);
	assert_int_equal(ids_kind_of("0 100000 65536\n"), IDS_ONE);
	assert_int_equal(ids_kind_of(""), IDS_ONE);
	assert_int_equal(ids_kind_of("nonsense\n0 0"), IDS_ONE);
}

static void lent(void **state)
{
	struct ids_lent l;

	(void)state;
	assert_true(ids_lent_parse("bob:100000:65536\nalice:165536:65536\n", 1000, "alice", &l));
	assert_int_equal(l.first, 165536);
	assert_int_equal(l.count, 65536);
	assert_true(ids_lent_parse("1000:165536:65536", 1000, "alice", &l));
	assert_true(
	    ids_lent_parse("alice:1:10\n# alice:5:6\nalice:300000:70000\nalice:200000:65536\n", 1000, "alice", &l));
	assert_int_equal(l.first, 300000);				       /* the largest */
	assert_false(ids_lent_parse("alice:100000:100\n", 1000, "alice", &l)); /* too few */
	assert_false(ids_lent_parse("alice2:100000:65536\n10001:100000:65536\n", 1000, "alice", &l));
	assert_false(ids_lent_parse("alice:4294967290:65536\nalice::\nalice\n:::\n\n", 1000, "alice", &l));
	assert_false(ids_lent_parse("alice:0:65536\n", 1000, "alice", &l)); /* root is nobody's to lend */
	assert_true(ids_lent_parse("1000:100000:65536\n", 1000, NULL, &l));
	assert_true(ids_lent_parse("alice:65536:4000000000\n", 1000, "alice", &l));
	assert_true(l.count <= 1U << 30);
}

static void found_again(void **state)
{
	char folder[] = "/tmp/pidnote-XXXXXX";
	struct err err = ERR_INIT;
	pid_t pid = fork(), seen = 0;

	(void)state;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		pause();
		_exit(0);
	}
	assert_non_null(mkdtemp(folder));
	cleanup_close int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pidnote_write(dir, "note", pid, &err), 0);
	int fd = pidnote_find(dir, "note", &seen);
	assert_true(fd >= 0);
	assert_int_equal(seen, pid);
	close(fd);

	/* a number used again, a boot that is over, a file that is none */
	cleanup_buf struct buf text = BUF_INIT, other = BUF_INIT;
	assert_int_equal(io_read_file(dir, "note", 256, &text), 0);
	buf_addf(&other, "%d 1%s", (int)pid, strchr(text.data, ' ') + 1);
	assert_int_equal(io_write_file(dir, "other", other.data, other.len, 0600), 0);
	assert_int_equal(pidnote_find(dir, "other", &seen), -1);
	text.data[text.len - 2] ^= 1;
	assert_int_equal(io_write_file(dir, "boot", text.data, text.len, 0600), 0);
	assert_int_equal(pidnote_find(dir, "boot", &seen), -1);
	assert_int_equal(io_write_file(dir, "none", "1 x", 3, 0600), 0);
	assert_int_equal(pidnote_find(dir, "none", &seen), -1);
	assert_int_equal(pidnote_find(dir, "missing", &seen), -1);

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(pidnote_find(dir, "note", &seen), -1);
	assert_int_equal(pidnote_write(dir, "note", pid, &err), -1);
	assert_int_equal(io_remove_tree(AT_FDCWD, folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(kinds), cmocka_unit_test(lent),
					   cmocka_unit_test(found_again)};

	return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
