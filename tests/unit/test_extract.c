/* The extract role's heart, fed with tar streams of every hostile kind, made by libarchive; and the whole way through
 * site_extract() is in tests/e2e. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/static/extract.h"

struct rig {
	char dir[64];
	int fd;
	struct archive *tar;
	int tar_fd;
};
static struct rig rig;

static int setup(void **state)
{
	(void)state;
	memcpy(rig.dir, "/tmp/test-extract-XXXXXX", 25);
	assert_non_null(mkdtemp(rig.dir));
	rig.fd = open(rig.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig.tar_fd = memfd_create("tar", MFD_CLOEXEC);
	rig.tar = archive_write_new();
	archive_write_set_format_pax_restricted(rig.tar);
	assert_int_equal(archive_write_open_fd(rig.tar, rig.tar_fd), ARCHIVE_OK);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (rig.tar)
		archive_write_free(rig.tar);
	close(rig.tar_fd);
	close(rig.fd);
	assert_int_equal(io_remove_tree(AT_FDCWD, rig.dir), 0);
	return 0;
}

static void add(const char *path, unsigned type, const char *text, const char *hard)
{
	struct archive_entry *e = archive_entry_new();
	size_t n = type == AE_IFREG && text ? strlen(text) : 0;

	archive_entry_set_pathname(e, path);
	archive_entry_set_filetype(e, type);
	archive_entry_set_perm(e, 04777);
	archive_entry_set_uid(e, 12345);
	archive_entry_set_mtime(e, 1000, 0);
	if (type == AE_IFLNK)
		archive_entry_set_symlink(e, text);
	if (hard)
		archive_entry_set_hardlink(e, hard);
	archive_entry_set_size(e, (la_int64_t)n);
	archive_entry_set_rdevmajor(e, 1);
	archive_entry_set_rdevminor(e, 3);
	assert_int_equal(archive_write_header(rig.tar, e), ARCHIVE_OK);
	if (n)
		assert_int_equal(archive_write_data(rig.tar, text, n), n);
	archive_entry_free(e);
}

static void file(const char *path, const char *text)
{
	add(path, AE_IFREG, text, NULL);
}

static int run(uint64_t bytes, uint32_t files, struct err *err)
{
	const struct extract_limits limits = {bytes, files};

	archive_write_free(rig.tar);
	rig.tar = NULL;
	lseek(rig.tar_fd, 0, SEEK_SET);
	*err = ERR_INIT;
	return extract_tar(rig.tar_fd, rig.fd, &limits, err);
}

static void expect_file(const char *path, const char *text)
{
	cleanup_buf struct buf b = BUF_INIT;

	assert_int_equal(io_read_file(rig.fd, path, 1 << 20, &b), 0);
	assert_string_equal(b.data, text);
}

static bool there(const char *path)
{
	struct stat st;

	return fstatat(rig.fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void plain(void **state)
{
	struct err err;
	struct stat st;
	char sum[65] = "";

	(void)state;
	add("./", AE_IFDIR, NULL, NULL);
	add("a", AE_IFDIR, NULL, NULL);
	file("a/b.txt", "hello");
	file("./c//d/e.txt", "deep");
	file("empty", NULL);
	add("empty-folder/", AE_IFDIR, NULL, NULL);
	file("a/b.txt", "again");
	assert_int_equal(run(1000, 100, &err), 0);
	expect_file("a/b.txt", "again");
	expect_file("c/d/e.txt", "deep");
	expect_file("empty", "");
	assert_int_equal(fstatat(rig.fd, "a/b.txt", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644); /* neither setuid nor the archive's owner */
	assert_int_equal(st.st_uid, getuid());
	assert_true(st.st_mtime > 1000);
	assert_int_equal(fstatat(rig.fd, "c/d", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	cleanup_close int fd = openat(rig.fd, "c/d/e.txt", O_RDONLY);
	if (fgetxattr(fd, "user.spaced.sha256", sum, 64) < 0 && errno == ENOTSUP)
		return;
	/* sha256("deep") */
	assert_string_equal(sum, "74611c1d6455b534323a21f8133a6f43dc3a8188e7b946f96dcc28dde932fcb2");
}

static void hostile_names(void **state)
{
	static const char *const names[] = {"../x", "a/../../x", "/etc/x", "a/..", "..", "a/../x"};
	struct err err;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		file(names[i], "x");
		assert_int_equal(run(1000, 100, &err), -1);
		assert_int_equal(err.code, EINVAL);
		teardown(state);
		setup(state);
	}
}

static void hostile_kinds(void **state)
{
	static const unsigned kinds[] = {AE_IFCHR, AE_IFBLK, AE_IFIFO};
	struct err err;

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		add("x", kinds[i], NULL, NULL);
		assert_int_equal(run(1000, 100, &err), -1);
		assert_int_equal(err.code, EINVAL);
		assert_false(there("x"));
		teardown(state);
		setup(state);
	}
}

static void symlinks(void **state)
{
	struct err err;

	(void)state;
	file("real.txt", "real");
	add("good", AE_IFLNK, "real.txt", NULL);
	add("d/good", AE_IFLNK, "../real.txt", NULL);
	add("out", AE_IFLNK, "/etc/passwd", NULL);
	add("out2", AE_IFLNK, "../x", NULL);
	add("d/out3", AE_IFLNK, "../../x", NULL);
	add("d/out4", AE_IFLNK, "a/../../../x", NULL);
	assert_int_equal(run(1000, 100, &err), 0);
	assert_true(there("good"));
	assert_true(there("d/good"));
	assert_false(there("out"));
	assert_false(there("out2"));
	assert_false(there("d/out3"));
	assert_false(there("d/out4"));
}

/* The classic: a link to a folder outside, then a file "through" it. Links are made last, so the file gets a folder. */
static void file_through_a_link(void **state)
{
	struct err err;

	(void)state;
	add("l", AE_IFLNK, "/tmp", NULL);
	file("l/test-extract-escaped", "x");
	add("m", AE_IFLNK, "d", NULL);
	file("m/f", "x");
	assert_int_equal(run(1000, 100, &err), 0);
	assert_int_equal(access("/tmp/test-extract-escaped", F_OK), -1);
	expect_file("l/test-extract-escaped", "x");
	expect_file("m/f", "x");
}

static void hard_links(void **state)
{
	struct err err;

	file("a", "text");
	add("d/b", AE_IFREG, NULL, "a");
	assert_int_equal(run(1000, 100, &err), 0);
	expect_file("d/b", "text");
	teardown(state);
	setup(state);
	add("b", AE_IFREG, NULL, "/etc/passwd");
	assert_int_equal(run(1000, 100, &err), -1);
	teardown(state);
	setup(state);
	add("b", AE_IFREG, NULL, "../../etc/passwd");
	assert_int_equal(run(1000, 100, &err), -1);
	teardown(state);
	setup(state);
	add("b", AE_IFREG, NULL, "missing");
	assert_int_equal(run(1000, 100, &err), -1);
}

static void limits(void **state)
{
	struct err err;

	file("a", "0123456789");
	file("b", "0123456789");
	assert_int_equal(run(20, 2, &err), 0);
	teardown(state);
	setup(state);
	file("a", "0123456789");
	file("b", "0123456789");
	assert_int_equal(run(19, 2, &err), -1);
	assert_int_equal(err.code, EFBIG);
	teardown(state);
	setup(state);
	file("a", "0");
	file("b", "0");
	assert_int_equal(run(20, 1, &err), -1);
	assert_int_equal(err.code, EFBIG);
	teardown(state);
	setup(state);
	file("a/b/c/d", "0"); /* folders made on the way count */
	assert_int_equal(run(20, 3, &err), -1);
	assert_int_equal(err.code, EFBIG);
	teardown(state);
	setup(state);
	for (int i = 0; i < 5; i++)
		add("l", AE_IFLNK, "x", NULL);
	assert_int_equal(run(20, 4, &err), -1);
	assert_int_equal(err.code, EFBIG);
	teardown(state);
	setup(state);
	char deep[300] = "";
	for (size_t i = 0; i < 130; i++)
		memcpy(deep + 2 * i, "a/", 3);
	file(deep, "x");
	assert_int_equal(run(20, 1000, &err), -1);
}

static void conflicts(void **state)
{
	struct err err;

	file("a", "x");
	file("a/b", "x");
	assert_int_equal(run(100, 100, &err), -1);
	teardown(state);
	setup(state);
	file("a/b", "x");
	file("a", "x");
	assert_int_equal(run(100, 100, &err), -1);
}

static void many_files(void **state)
{
	struct err err;
	char name[32];

	(void)state;
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "d%d/f%d", i % 7, i);
		file(name, name);
	}
	assert_int_equal(run(100000, 1000, &err), 0);
	expect_file("d5/f299", "d5/f299");
}

static void damaged(void **state)
{
	struct err err;
	struct stat st;

	file("a", "0123456789");
	archive_write_close(rig.tar);
	assert_int_equal(fstat(rig.tar_fd, &st), 0);
	assert_int_equal(ftruncate(rig.tar_fd, 515), 0);
	assert_int_equal(run(100, 100, &err), -1);
	assert_int_equal(err.code, EINVAL);
	teardown(state);
	setup(state);
	archive_write_close(rig.tar);
	assert_int_equal(ftruncate(rig.tar_fd, 0), 0);
	assert_int_equal(pwrite(rig.tar_fd, "this is not a tar archive at all, is it?", 40, 0), 40);
	assert_int_equal(run(100, 100, &err), -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(plain),	   T(hostile_names), T(hostile_kinds), T(symlinks),   T(file_through_a_link),
	    T(hard_links), T(limits),	     T(conflicts),     T(many_files), T(damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
