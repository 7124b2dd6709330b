/* Base images: names and ids, the records in a state folder, the skeleton made from a base's own tree, and what a tree gives
 * builds. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/base.h"
#include "sandbox/skeleton.h"
#include "spaced/build/base_tools.h"

static char state_dir[] = "/tmp/spaced-bases-XXXXXX";
static int dir = -1;

static int setup(void **unused)
{
	(void)unused;
	if (!mkdtemp(state_dir))
		return -1;
	dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 || mkdirat(dir, STATE_BASES, 0755) < 0 ? -1 : 0;
}

static int teardown(void **unused)
{
	(void)unused;
	return io_remove_tree(AT_FDCWD, state_dir);
}

static void put(const char *path, const char *text, mode_t mode)
{
	cleanup_free char *at = xstrdup(path);

	for (char *slash = strchr(at, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdirat(dir, at, 0755);
		*slash = '/';
	}
	cleanup_close int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
	assert_int_equal(fchmod(fd, mode), 0);
}

static void names(void **unused)
{
	char name[BASE_NAME_MAX + 1];

	assert_true(base_name_ok("trixie"));
	assert_true(base_name_ok("a-b-1"));
	assert_false(base_name_ok("host"));
	assert_false(base_name_ok("default"));
	assert_false(base_name_ok("../x"));
	assert_false(base_name_ok(""));
	assert_false(base_name_ok("a23456789012345678901234567890123456789012"));
	assert_true(base_id_split("a-b-20260102030405", name));
	assert_string_equal(name, "a-b");
	assert_false(base_id_split("a-b", NULL));
	assert_false(base_id_split("a-2026010203040x", NULL));
	assert_false(base_id_split("host-20260102030405", NULL));
	/* what skeletons were called once is no image */
	assert_false(base_id_split("0123456789abcdef", NULL));
}

static void records(void **unused)
{
	cleanup_buf struct buf text = BUF_INIT, read = BUF_INIT;
	char id[BASE_ID], name[BASE_NAME_MAX + 1];
	struct err err = ERR_INIT;
	size_t n;

	assert_null(base_list(state_dir, &n));
	base_default(state_dir, name);
	assert_string_equal(name, "host");
	buf_adds(&text, "{}");
	assert_int_equal(base_record_write(state_dir, "a-20200101000000", &text, &err), 0);
	assert_int_equal(base_record_write(state_dir, "a-20210101000000", &text, &err), 0);
	assert_int_equal(base_record_write(state_dir, "a-b-20300101000000", &text, &err), 0);
	put(STATE_BASES "/junk.json", "{}", 0644);
	cleanup_free void *list = base_list(state_dir, &n);
	assert_int_equal(n, 3);
	assert_true(base_newest(state_dir, "a", id));
	assert_string_equal(id, "a-20210101000000");
	assert_false(base_newest(state_dir, "b", id));
	assert_true(base_exists(state_dir, "a-b-20300101000000"));
	assert_false(base_exists(state_dir, "../bases/a-20200101000000"));
	assert_int_equal(base_record_read(state_dir, "a-20200101000000", &read, &err), 0);
	assert_string_equal(read.data, "{}");
	/* a clock that was set back does not make an older version */
	base_id_new(state_dir, "a-b", id);
	assert_string_equal(id, "a-b-20300101000001");
	base_id_new(state_dir, "a", id);
	assert_true(strcmp(id, "a-20210101000000") > 0);
	assert_int_equal(base_default_set(state_dir, "a", &err), 0);
	base_default(state_dir, name);
	assert_string_equal(name, "a");
}

/* The default is looked up when it is needed, a name gives its newest image. */
static void wishes(void **unused)
{
	char id[BASE_ID];
	struct err err = ERR_INIT;

	assert_int_equal(base_resolve(state_dir, "", id, &err), 0);
	assert_string_equal(id, "a-20210101000000");
	assert_int_equal(base_resolve(state_dir, "host", id, &err), 0);
	assert_string_equal(id, "");
	assert_int_equal(base_resolve(state_dir, "a-b", id, &err), 0);
	assert_string_equal(id, "a-b-20300101000000");
	assert_int_equal(base_resolve(state_dir, "gone", id, &err), -1);
	assert_int_equal(err.code, ENOENT);
}

static void only_one_is_made(void **unused)
{
	struct err err = ERR_INIT;
	cleanup_close int a = base_lock(state_dir, &err);

	assert_true(a >= 0);
	assert_int_equal(base_lock(state_dir, &err), -1);
	assert_int_equal(err.code, EBUSY);
}

static bool is_there(const char *path)
{
	return faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void skeleton_of_a_tree(void **unused)
{
	cleanup_buf struct buf passwd = BUF_INIT;
	char one[SKELETON_NAME], two[SKELETON_NAME];
	struct err err = ERR_INIT;

	put("tree/usr/bin/true", "", 0755);
	put("tree/etc/passwd", "root:x:0:0::/:/bin/sh\nown:x:77:77::/:/bin/sh\n", 0644);
	put("tree/etc/mime.types", "own", 0644);
	put("tree/etc/services", "secret", 0600);
	put("tree/etc/shadow", "root:hash:1::::::\n", 0640);
	put("tree/etc/apt/sources.list", "deb http://me:word@mirror/ x main\n", 0644);
	put("tree/etc/apt/sources.list.d/a.list", "deb http://mirror/ x main # who@where\n", 0644);
	put("tree/etc/apt/apt.conf", "Acquire::https::Proxy \"https://token@proxy:3128\";\n", 0644);
	assert_int_equal(symlinkat("usr/bin", dir, "tree/bin"), 0);
	/* a link that would lead out of the tree: to this host's own folder */
	assert_int_equal(symlinkat("/etc", dir, "tree/var"), 0);
	assert_int_equal(symlinkat("/etc/ssl", dir, "tree/etc/ssl"), 0);
	put("out/.keep", "", 0644);
	cleanup_close int tree = openat(dir, "tree", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int out = openat(dir, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	skeleton_name(tree, one);
	assert_int_equal(skeleton_build(tree, out, &err), 0);
	assert_int_equal(io_read_file(dir, "out/etc/passwd", 4096, &passwd), 0);
	assert_non_null(strstr(passwd.data, "\nown:x:77:"));
	assert_non_null(strstr(passwd.data, "\nuser:x:1000:1000:"));
	assert_true(is_there("out/bin"));
	assert_true(is_there("out/etc/mime.types"));
	assert_true(is_there("out/etc/apt/sources.list.d/a.list"));
	assert_false(is_there("out/etc/services"));	    /* not for everybody there */
	assert_false(is_there("out/etc/apt/sources.list")); /* a password */
	assert_false(is_there("out/etc/apt/apt.conf"));	    /* a name alone may be one as well */
	assert_false(is_there("out/etc/ssl/certs"));	    /* through a link, of the host */
	put("tree/etc/mime.types", "another", 0644);
	skeleton_name(tree, two);
	assert_string_not_equal(one, two);
}

static void tools_of_a_tree(void **unused)
{
	struct tools t, back;

	put("sys/usr/bin/python3.13", "x", 0755);
	put("sys/usr/bin/apt-get", "x", 0755);
	put("sys/usr/bin/npm", "x", 0644); /* cannot be run */
	put("sys/usr/local/bin/uv", "x", 0755);
	assert_int_equal(symlinkat("python3.13", dir, "sys/usr/bin/python3"), 0);
	assert_int_equal(symlinkat("/usr/bin/apt-get", dir, "sys/usr/bin/node"), 0); /* inside the tree */
	assert_int_equal(symlinkat("/usr/bin/env", dir, "sys/usr/bin/curl"), 0);
	cleanup_close int root = openat(dir, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	tools_find(&t, root, "a-20200101000000");
	assert_int_equal(strncmp(t.base, "a-20200101000000 ", 17), 0);
	assert_string_equal(t.python, "3.13");
	assert_int_equal(t.pythons.n, 1);
	assert_true(t.uv && t.apt && t.node && !t.npm);
	json_t *j = tools_json(&t);
	assert_true(tools_from_json(j, &back));
	assert_string_equal(back.base, t.base);
	assert_string_equal(back.python_stamp, t.python_stamp);
	assert_string_equal(back.pythons.v[0], "3.13");
	assert_true(back.uv && back.apt && back.node && !back.npm);
	tools_release(&back);
	json_object_del(j, "base");
	assert_false(tools_from_json(j, &back));
	json_decref(j);
	tools_release(&back);
	tools_release(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names),
	    cmocka_unit_test(records),
	    cmocka_unit_test(wishes),
	    cmocka_unit_test(only_one_is_made),
	    cmocka_unit_test(skeleton_of_a_tree),
	    cmocka_unit_test(tools_of_a_tree),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
