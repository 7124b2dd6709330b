/* requirements.txt: what it takes in; packages.txt: what may stand there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/build/requirements.h"
#include "tests/unit/life_tree.h"

static void includes(void **state)
{
	static const struct fake_file files[] = {
	    {"requirements.txt",
	     "flask # a web server\n-r sub/more.txt\n--constraint=c.txt\n-r https://example.org/r.txt\n"},
	    {"sub/more.txt", "-r ../base.txt\nrequests\n"},
	    {"base.txt", "numpy\n-r requirements.txt\n"},
	    {"c.txt", "urllib3<2\n"},
	    {0}};
	static const char *const order[] = {"requirements.txt", "sub/more.txt", "c.txt", "base.txt"};
	struct tree t = fake_tree(files);
	struct requirements r = {0};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(requirements_read(&t, "requirements.txt", &r, &err), 0);
	assert_int_equal(r.n, 4);
	for (size_t i = 0; i < 4; i++)
		assert_string_equal(r.files[i].path, order[i]);
	assert_false(r.local);
	assert_true(requirements_name(&r, "flask"));
	assert_true(requirements_name(&r, "numpy"));
	assert_false(requirements_name(&r, "num"));
	requirements_release(&r);
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {{"-r gone.txt\n", "not in the repository"},
		     {"-r ../up.txt\n", "leaves the repository"},
		     {"-r /etc/passwd\n", "leaves the repository"}};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const struct fake_file files[] = {{"requirements.txt", cases[i].text}, {0}};
		struct tree t = fake_tree(files);
		struct requirements r = {0};
		struct err err = ERR_INIT;
		assert_int_equal(requirements_read(&t, "requirements.txt", &r, &err), -1);
		assert_non_null(strstr(err.msg, cases[i].why));
		requirements_release(&r);
	}
}

/* as Windows' editors write files */
static void byte_order_mark(void **state)
{
	static const struct fake_file files[] = {{"requirements.txt", "\xef\xbb\xbf-r more.txt\r\n"},
						 {"more.txt", "\xef\xbb\xbf"
							      "flask\r\n"},
						 {0}};
	struct tree t = fake_tree(files);
	struct requirements r = {0};
	struct strings names = {0};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(requirements_read(&t, "requirements.txt", &r, &err), 0);
	assert_int_equal(r.n, 2);
	assert_true(requirements_name(&r, "flask"));
	requirements_release(&r);
	assert_int_equal(packages_read(STR("\xef\xbb\xbf"
					   "ffmpeg\r\n"),
				       &names, &err),
			 0);
	assert_string_equal(names.v[0], "ffmpeg");
	packages_release(&names);
}

static void local_code(void **state)
{
	static const struct {
		const char *line;
		bool local;
	} cases[] = {
	    {"-e .", true},
	    {"--editable=./pkg", true},
	    {".", true},
	    {"./wheels/a-1.0-py3-none-any.whl", true},
	    {"a-1.0.tar.gz", true},
	    {"pkgs/mine", true},
	    {"mine @ file:///app/mine", true},
	    {"--find-links wheels", true},
	    {"gradio[oauth]==5.0 ; python_version < '3.13'", false},
	    {"git+https://example.org/a/b.git", false},
	    {"-e git+https://example.org/a/b.git#egg=b", false},
	    {"https://example.org/a-1.0.tar.gz", false},
	    {"a @ https://example.org/a.whl", false},
	    {"--extra-index-url https://example.org/simple", false},
	    {"# -e .", false},
	    {"", false},
	    {"fl\\\nask", false},
	    {"torch==2.0.0+cpu", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct fake_file files[] = {{"requirements.txt", cases[i].line}, {0}};
		struct tree t = fake_tree(files);
		struct requirements r = {0};
		struct err err = ERR_INIT;
		assert_int_equal(requirements_read(&t, "requirements.txt", &r, &err), 0);
		if (r.local != cases[i].local)
			fail_msg("`%s`", cases[i].line);
		requirements_release(&r);
	}
}

static void names(void **state)
{
	static const struct fake_file files[] = {{"requirements.txt", "Flask_Login>=1\nstreamlit\n"}, {0}};
	struct tree t = fake_tree(files);
	struct requirements r = {0};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(requirements_read(&t, "requirements.txt", &r, &err), 0);
	assert_true(requirements_name(&r, "flask-login"));
	assert_true(requirements_name(&r, "streamlit"));
	assert_false(requirements_name(&r, "flask"));
	requirements_release(&r);
}

static void packages(void **state)
{
	static const char *const bad[] = {"-y",	 "--purge", "a",    "Big",	"x;y", "$(id)",
					  "a/b", "../a",    "foo:", "pkg=1 -o", "a_b"};
	struct strings out = {0};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(
	    packages_read(STR("ffmpeg\n# a comment\n\nlibgl1 g++  # two\r\nlibc6:amd64=2.36-9+deb12u1\n"), &out, &err),
	    0);
	assert_int_equal(out.n, 4);
	assert_string_equal(out.v[0], "ffmpeg");
	assert_string_equal(out.v[2], "g++");
	assert_string_equal(out.v[3], "libc6:amd64=2.36-9+deb12u1");
	packages_release(&out);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		bool refused = packages_read(STRZ(bad[i]), &out, &err) < 0;
		if (!refused)
			fail_msg("`%s` was taken", bad[i]);
		packages_release(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(includes), cmocka_unit_test(refuses),  cmocka_unit_test(local_code),
	    cmocka_unit_test(names),	cmocka_unit_test(packages), cmocka_unit_test(byte_order_mark),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
