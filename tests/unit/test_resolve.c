/* Paths of outsiders: openat2(2) and the walk that stands in for it answer the same, and neither leaves the folder, also
 * while somebody swaps folders for symlinks and moves them out. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"

/* Included once more with the walk forced: both ways in one program. */
#define resolve_in_root walk_in_root_
#define resolve_inside walk_inside_
#define resolve_beneath walk_beneath_
#define resolve_has_openat2 walk_has_openat2_
bool resolve_has_openat2(void);
int resolve_in_root(int root, const char *path, int flags);
int resolve_inside(int dirfd, const char *path, int flags);
int resolve_beneath(int dirfd, const char *path, int flags);
#include "base/resolve.c" // NOLINT(bugprone-suspicious-include): compiled again under other names
#undef resolve_in_root
#undef resolve_inside
#undef resolve_beneath
#undef resolve_has_openat2

#define PATIENCE_MS 60000

static char folder[] = "/tmp/test-resolve-XXXXXX";
static int base, root;

static void make_file(const char *path, const char *text)
{
	cleanup_close int fd = openat(base, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
}

static int setup(void **state)
{
	static const char *const dirs[] = {"root", "root/a", "root/a/b", "root/etc", "root/jail", "outside"};
	static const struct {
		const char *path, *to;
	} links[] = {
	    {"root/abs", "/etc/passwd"},
	    {"root/up", "../../../../etc/passwd"},
	    {"root/loop1", "loop2"},
	    {"root/loop2", "loop1"},
	    {"root/self", "self"},
	    {"root/dirlink", "a/b"},
	    {"root/absdir", "/a"},
	    {"root/a/b/back", "../../etc"},
	    {"root/dangling", "/nowhere/x"},
	    {"root/chain", "absdir/../abs"},
	    {"root/out", "../outside/secret"},
	    {"root/dot", "./././a/./b/."},
	    {"root/tail", "a/b/"},
	    {"root/filetail", "etc/passwd/"},
	};

	setenv("SPACED_FORCE", "no_openat2", 1);
	assert_false(walk_has_openat2_());
	unsetenv("SPACED_FORCE");
	if (!mkdtemp(folder) || (base = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return -1;
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
		assert_int_equal(mkdirat(base, dirs[i], 0755), 0);
	make_file("root/etc/passwd", "inside");
	make_file("root/a/b/file", "inside");
	make_file("outside/secret", "OUTSIDE");
	make_file("outside/file", "OUTSIDE");
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		assert_int_equal(symlinkat(links[i].to, base, links[i].path), 0);
	for (int i = 0; i < 45; i++) { /* more links than anybody follows */
		char name[32], to[32];

		snprintf(name, sizeof name, "root/n%d", i);
		snprintf(to, sizeof to, i == 44 ? "a" : "n%d", i + 1);
		assert_int_equal(symlinkat(to, base, name), 0);
	}
	root = openat(base, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	close(root);
	close(base);
	return io_remove_tree(AT_FDCWD, folder);
}

static const char *const paths[] = {
    "etc/passwd",
    "/etc/passwd",
    "/../../etc/passwd",
    "..",
    "../..",
    ".",
    "/",
    "",
    "a/b/../b/file",
    "a/b/file/",
    "a/b/",
    "a//b///file",
    "etc/passwd/x",
    "nothing",
    "nothing/x",
    "abs",
    "up",
    "loop1",
    "self",
    "self/x",
    "dirlink",
    "dirlink/file",
    "dirlink/../b/file",
    "absdir/b/file",
    "a/b/back/passwd",
    "a/b/back/../../../../etc/passwd",
    "dangling",
    "chain",
    "out",
    "dot",
    "dot/file",
    "tail",
    "tail/file",
    "filetail",
    "n0",
    "n4",
    "n5",
    "n5/b/file",
    "n44/b/file",
    "../outside/secret",
    "a/../../outside",
    "jail/../../outside/secret",
    "./etc/./passwd/.",
    "dirlink/",
    "abs/",
};

static void same(int way, const char *path, int flags)
{
	int (*const pairs[][2])(int, const char *, int) = {{resolve_in_root, walk_in_root_},
							   {resolve_inside, walk_inside_}};
	struct stat a, b;
	int fa, fb;

	fb = way < 2 ? pairs[way][1](root, path, flags) : walk_beneath_(root, path, flags);
	/* Where somebody mounts just then, the kernel begins anew, and goes on to count the links that it has followed. */
	uint64_t until = io_now_ms() + PATIENCE_MS;
	do
		fa = way < 2 ? pairs[way][0](root, path, flags) : resolve_beneath(root, path, flags);
	while (fa == -ELOOP && fb >= 0 && io_now_ms() < until);
	if (fa < 0 || fb < 0) {
		if (fa != fb)
			fail_msg("way %d, `%s`, flags %#x: kernel %d, walk %d", way, path, (unsigned)flags, fa, fb);
		return;
	}
	assert_int_equal(fstat(fa, &a), 0);
	assert_int_equal(fstat(fb, &b), 0);
	if (a.st_ino != b.st_ino || a.st_dev != b.st_dev)
		fail_msg("way %d, `%s`: two different files", way, path);
	assert_int_equal(fcntl(fb, F_GETFD), FD_CLOEXEC);
	close(fa);
	close(fb);
}

static void answers_are_the_kernels(void **state)
{
	static const int flags[] = {
	    O_PATH,   O_PATH | O_DIRECTORY,  O_PATH | O_NOFOLLOW, O_RDONLY, O_RDONLY | O_NOFOLLOW,
	    O_WRONLY, O_RDONLY | O_DIRECTORY};

	if (!resolve_has_openat2())
		skip();
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (size_t f = 0; f < sizeof flags / sizeof *flags; f++)
			for (int way = 0; way < 3; way++)
				same(way, paths[i], flags[f]);
}

static void the_root_stops_everything(void **state)
{
	static const char *const out[] = {"up", "abs", "/../../../etc/passwd", "a/b/back/../../../../../etc/passwd",
					  "chain"};
	struct stat inside, st;

	assert_int_equal(fstatat(root, "etc/passwd", &inside, 0), 0);
	for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
		cleanup_close int fd = walk_in_root_(root, out[i], O_RDONLY);

		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(st.st_ino == inside.st_ino && st.st_dev == inside.st_dev);
	}
	assert_int_equal(walk_in_root_(root, "out", O_RDONLY), -ENOENT);
}

/* /proc/self/root is the way out of any root. */
static void magic_links_lead_nowhere(void **state)
{
	cleanup_close int proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	assert_true(proc >= 0);
	assert_int_equal(walk_in_root_(proc, "root/etc/passwd", O_RDONLY), -ELOOP);
	assert_int_equal(walk_in_root_(proc, "fd/0", O_PATH), -ELOOP);
}

static atomic_bool over;

/* a/b becomes a symlink to the outside, a folder again, and is moved out and back. */
static void *renamer(void *unused)
{
	if (symlinkat("../../outside", root, "a/evil") < 0)
		return NULL;
	while (!over) {
		renameat2(root, "a/b", root, "a/evil", RENAME_EXCHANGE);
		renameat2(root, "a/b", root, "a/evil", RENAME_EXCHANGE);
		renameat(root, "jail", base, "outside/jail");
		renameat(base, "outside/jail", root, "jail");
	}
	unlinkat(root, "a/evil", 0);
	return NULL;
}

/* Whatever is opened is never a file of the outside. */
static void a_rename_at_any_time_does_not_help(void **state)
{
	static const char *const tries[] = {"a/b/file", "jail/../../outside/file", "jail/../outside/file",
					    "a/b/../../outside/file", "dirlink/file"};
	struct stat secret, st;
	pthread_t thread;
	int found = 0;

	assert_int_equal(fstatat(base, "outside/file", &secret, 0), 0);
	over = false;
	assert_int_equal(pthread_create(&thread, NULL, renamer, NULL), 0);
	/* Where nothing can be opened, the other thread may be kept from the CPU for long. */
	uint64_t until = io_now_ms() + PATIENCE_MS;
	for (int i = 0; i < 40000 || (found == 0 && io_now_ms() < until); i++) {
		const char *path = tries[i % 5];
		int fd = i % 3 == 0   ? walk_in_root_(root, path, O_RDONLY)
			 : i % 3 == 1 ? walk_inside_(root, path, O_RDONLY)
				      : walk_beneath_(root, path, O_RDONLY);

		if (fd < 0)
			continue;
		found++;
		assert_int_equal(fstat(fd, &st), 0);
		close(fd);
		assert_false(st.st_ino == secret.st_ino && st.st_dev == secret.st_dev);
	}
	over = true;
	pthread_join(thread, NULL);
	assert_true(found > 0);
}

/* Moves a file over and over where nobody looks. */
static void *mover(void *unused)
{
	while (!over) {
		renameat(base, "outside/file", base, "outside/moved");
		renameat(base, "outside/moved", base, "outside/file");
	}
	return NULL;
}

/* For the kernel any rename of the host may be one of ours, where the path has a "..". */
static void a_rename_elsewhere_does_not_disturb(void **state)
{
	pthread_t thread;

	over = false;
	assert_int_equal(pthread_create(&thread, NULL, mover, NULL), 0);
	int fd = 0;
	for (int i = 0; i < 40000 && fd >= 0; i++) {
		fd = i % 2 ? resolve_in_root(root, "a/../a/b/../b/file", O_RDONLY)
			   : resolve_inside(root, "a/../a/b/../b/file", O_RDONLY);
		if (fd >= 0)
			close(fd);
	}
	over = true;
	pthread_join(thread, NULL);
	if (fd < 0)
		fail_msg("%s", strerror(-fd));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(answers_are_the_kernels),
	    cmocka_unit_test(the_root_stops_everything),
	    cmocka_unit_test(magic_links_lead_nowhere),
	    cmocka_unit_test(a_rename_at_any_time_does_not_help),
	    cmocka_unit_test(a_rename_elsewhere_does_not_disturb),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
