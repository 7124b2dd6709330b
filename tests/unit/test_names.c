/* The one rule for names (battery H1) and host labels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "spaced/names.h"

static void users_good(void **state)
{
	static const char *const good[] = {
	    "alice", "Al", "a1", "a-b-c", "x9-9x", "0a", "abcdefghijklmnopqrstuvwxyz0123456789abcdef" /* 42 */};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct err err = ERR_INIT;
		if (name_check_user(good[i], &err) != 0)
			fail_msg("`%s`: %s", good[i], err.msg);
	}
}

static void users_bad(void **state)
{
	static const char *const bad[] = {"",
					  "a",
					  ".",
					  "..",
					  "../x",
					  "a/b",
					  "-rf",
					  "rf-",
					  "a--b",
					  "1234",
					  "a b",
					  " a",
					  "a ",
					  "a.",
					  "a.b",
					  "a_b",
					  "%2e%2e",
					  "\xd0\xb0lice" /* Cyrillic a */,
					  "\xf0\x9f\x98\x80",
					  "a\nb",
					  "a\tb",
					  "API",
					  "api",
					  "spaces",
					  "Settings",
					  "0123456789abcdef01234567",
					  "ABCDEFABCDEFABCDEFABCDEF",
					  "abcdefghijklmnopqrstuvwxyz0123456789abcdefg" /* 43 */,
					  "a:b",
					  "a@b",
					  "a\\b",
					  "a'b",
					  "a\"b",
					  "a;b",
					  "$x",
					  "a*",
					  "~root",
					  "a\x7f"};
	cleanup_free char *longest = xcalloc(1, 301);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;
		if (name_check_user(bad[i], &err) == 0)
			fail_msg("`%s` was accepted", bad[i]);
		assert_true(err.msg[0] != '\0');
	}
	struct err err = ERR_INIT;
	memset(longest, 'a', 300);
	assert_int_equal(name_check_user(longest, &err), -1);
}

static void spaces_good(void **state)
{
	static const char *const good[] = {"x", "hello", "My_App.v2", "_", "a.b-c_d", "1", "CON", "api", "git", "a-.b"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct err err = ERR_INIT;
		if (name_check_space(good[i], &err) != 0)
			fail_msg("`%s`: %s", good[i], err.msg);
	}
}

static void spaces_bad(void **state)
{
	static const char *const bad[] = {"",
					  ".",
					  "..",
					  "../x",
					  "a/b",
					  "/",
					  "-rf",
					  "a-",
					  ".a",
					  "a.",
					  "a--b",
					  "a..b",
					  "a ",
					  " a",
					  "a b",
					  "%2e%2e",
					  "a%2fb",
					  "\xc3\xa4",
					  "\xf0\x9f\x98\x80",
					  "a\nb",
					  "x.git",
					  "x.GIT",
					  ".git",
					  "x.lock",
					  "x.Lock",
					  "a:b",
					  "a\\b",
					  "a\x01",
					  "a?b",
					  "a#b",
					  "a&b",
					  "a'b",
					  "a\"b",
					  "<b>"};
	cleanup_free char *s = xcalloc(1, 301);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;
		if (name_check_space(bad[i], &err) == 0)
			fail_msg("`%s` was accepted", bad[i]);
	}
	struct err err = ERR_INIT;
	memset(s, 'a', 300);
	assert_int_equal(name_check_space(s, &err), -1);
	s[97] = '\0';
	assert_int_equal(name_check_space(s, &err), -1);
	s[96] = '\0';
	assert_int_equal(name_check_space(s, &err), 0);
}

static void label_is(const char *owner, const char *name, const char *want)
{
	char label[NAME_LABEL_MAX + 1];

	name_host_label(owner, name, false, label);
	assert_string_equal(label, want);
}

static void labels(void **state)
{
	label_is("Alice", "My_App.v2", "alice-my-app-v2");
	label_is("user", "tmp_test_space", "user-tmp-test-space");
	label_is("alice", "CON", "alice-con");
	/* Never "xn--...": that would be an IDNA label. */
	label_is("xn", "_foo", "xn-foo");
	label_is("a1", "b_._c", "a1-b-c");
	label_is("a1", "b_", "a1-b");
}

static void check_label(const char *s)
{
	size_t n = strlen(s);

	assert_in_range(n, 1, NAME_LABEL_MAX);
	assert_int_equal(strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-"), n);
	assert_true(s[0] != '-' && s[n - 1] != '-');
	assert_null(strstr(s, "--"));
}

static void labels_salted(void **state)
{
	char a[NAME_LABEL_MAX + 1], b[NAME_LABEL_MAX + 1], longest[NAME_SPACE_MAX + 1] = "";

	name_host_label("a-b", "c", true, a);
	name_host_label("a", "b-c", true, b);
	check_label(a);
	check_label(b);
	assert_int_equal(strncmp(a, "a-b-c-", 6), 0);
	assert_string_not_equal(a, b);
	/* A name of which nothing is left does not give the owner's bare name. */
	name_host_label("alice", "_", false, a);
	check_label(a);
	assert_int_equal(strlen(a), strlen("alice-12345678"));
	for (size_t n = 1; n <= NAME_SPACE_MAX; n++) {
		longest[n - 1] = n % 7 ? 'x' : '_';
		name_host_label("abcdefghijklmnopqrstuvwxyz0123456789abcdef", longest, false, a);
		check_label(a);
	}
	/* Two long names with the same beginning stay two labels. */
	memset(longest, 'x', NAME_SPACE_MAX);
	name_host_label("alice", longest, false, a);
	longest[NAME_SPACE_MAX - 1] = 'y';
	name_host_label("alice", longest, false, b);
	assert_string_not_equal(a, b);
}

static void split_is(const char *path, const char *owner, const char *space, const char *rest)
{
	char o[NAME_USER_MAX + 1], s[NAME_SPACE_MAX + 1];
	const char *r;
	size_t n;

	if (!name_split_repo_path(path, strlen(path), o, s, &r, &n))
		fail_msg("%s was refused", path);
	assert_string_equal(o, owner);
	assert_string_equal(s, space);
	assert_int_equal(n, strlen(rest));
	assert_memory_equal(r, rest, n);
}

static void split(void **state)
{
	static const char *const bad[] = {"",
					  "/",
					  "/spaces",
					  "/spaces/",
					  "/spaces/alice",
					  "/spaces/alice/",
					  "/spaces//x",
					  "/spaces/alice//info/refs",
					  "/spaces/alice/.git",
					  "/spaces/alice/..",
					  "/spaces/../x",
					  "/spaces/alice/..%2fx",
					  "/spaces/%61lice/x",
					  "/spaces/alice/x.git.git",
					  "/spaces/alice/-x",
					  "/Spaces/alice/x",
					  "/spacesalice/x",
					  "/spaces/api/x",
					  "/spaces/alice/x.lock",
					  "x/spaces/alice/x"};
	char o[NAME_USER_MAX + 1], s[NAME_SPACE_MAX + 1];
	const char *r;
	size_t n;

	split_is("/spaces/alice/hello", "alice", "hello", "");
	split_is("/spaces/alice/hello.git", "alice", "hello", "");
	split_is("/spaces/alice/hello/", "alice", "hello", "/");
	split_is("/spaces/alice/hello.git/info/refs", "alice", "hello", "/info/refs");
	split_is("/spaces/Alice/a.b_c/git-receive-pack", "Alice", "a.b_c", "/git-receive-pack");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (name_split_repo_path(bad[i], strlen(bad[i]), o, s, &r, &n))
			fail_msg("%s was accepted", bad[i]);
	assert_false(name_split_repo_path("/spaces/alice/he\0lo", 20, o, s, &r, &n));
	assert_false(name_split_repo_path("/spaces/al\0ce/hello", 19, o, s, &r, &n));
	/* The longest name keeps its ".git". */
	cleanup_free char *path = xcalloc(1, 200);
	snprintf(path, 200, "/spaces/alice/%.*s.git", NAME_SPACE_MAX,
		 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
	assert_true(name_split_repo_path(path, strlen(path), o, s, &r, &n));
	assert_int_equal(strlen(s), NAME_SPACE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(users_good), cmocka_unit_test(users_bad), cmocka_unit_test(spaces_good),
	    cmocka_unit_test(spaces_bad), cmocka_unit_test(labels),    cmocka_unit_test(labels_salted),
	    cmocka_unit_test(split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
