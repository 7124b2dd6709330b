/* Which of the host's apt sources a base image is made from: both formats, another release, what is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "spaced/cli/apt_sources.h"

static size_t take(const char *text, bool deb822, const char *to, struct buf *out)
{
	*out = BUF_INIT;
	return apt_sources_take(text, deb822, "bookworm", to, out);
}

static void one_line(void **unused)
{
	static const char text[] = "# a comment\n"
				   "deb http://mirror.example/debian bookworm main contrib # end\n"
				   "deb-src http://mirror.example/debian bookworm main\n"
				   "deb [arch=amd64,arm64 signed-by=/etc/apt/keyrings/own.gpg] "
				   "https://mirror.example/security bookworm-security main\n"
				   "deb http://mirror.example/debian bookworm-backports main\n"
				   "deb http://third.example/ bookworm-pgdg main\n"
				   "deb https://docker.example/debian bookworm stable\n"
				   "deb http://mirror.example/debian stable-updates main";
	struct buf out;

	assert_int_equal(take(text, false, "bookworm", &out), 3);
	assert_string_equal(out.data, "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
				      "Components: main contrib\n\n"
				      "Types: deb\nURIs: https://mirror.example/security\nSuites: bookworm-security\n"
				      "Components: main\nArchitectures: amd64 arm64\n"
				      "Signed-By: /etc/apt/keyrings/own.gpg\n\n"
				      "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-updates\n"
				      "Components: main\n\n");
	buf_release(&out);
}

static void count(void *ctx, const char *path)
{
	struct buf *all = ctx;

	buf_addf(all, "%s;", path);
}

static void deb822(void **unused)
{
	static const char text[] = "Types: deb deb-src\n"
				   "# inside\n"
				   "URIs: http://mirror.example/debian\n"
				   "Suites: bookworm bookworm-updates bookworm-backports\n"
				   "Components: main\n"
				   "Signed-By: /usr/share/keyrings/a.gpg\n"
				   " /usr/share/keyrings/b.gpg\n"
				   "\n"
				   "Types: deb\n"
				   "Enabled: no\n"
				   "URIs: http://off.example/\n"
				   "Suites: bookworm\n"
				   "Components: main\n"
				   "\n\n"
				   "types: deb\n"
				   "uris: http://flat.example/\n"
				   "suites: ./\n"
				   "\n"
				   "Types: deb\n"
				   "URIs: http://mirror.example/security\n"
				   "Suites: bookworm-security\n"
				   "Components: main\n"
				   "Signed-By:\n"
				   " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
				   " .\n"
				   " abc=\n"
				   " -----END PGP PUBLIC KEY BLOCK-----\n";
	struct buf out, keys = BUF_INIT;
	char uri[100];

	assert_int_equal(take(text, true, "trixie", &out), 2);
	assert_non_null(strstr(out.data, "Suites: trixie trixie-updates\n"));
	assert_null(strstr(out.data, "backports"));
	assert_null(strstr(out.data, "off.example"));
	assert_non_null(strstr(out.data, "Suites: trixie-security\n"));
	/* a key that stands in the file itself keeps its lines */
	assert_non_null(strstr(out.data, "\n .\n abc=\n -----END PGP"));
	assert_true(apt_sources_mirror(out.data, uri, sizeof uri));
	assert_string_equal(uri, "http://mirror.example/debian");
	apt_sources_keyrings(out.data, count, &keys);
	assert_string_equal(keys.data, "/usr/share/keyrings/a.gpg;/usr/share/keyrings/b.gpg;");
	buf_release(&keys);
	buf_release(&out);
}

static void nothing_there(void **unused)
{
	struct buf out;
	char uri[100];

	assert_int_equal(take("", true, "bookworm", &out), 0);
	assert_int_equal(take("deb", false, "bookworm", &out), 0);
	assert_int_equal(take("deb [arch=amd64", false, "bookworm", &out), 0);
	assert_int_equal(take("deb http://x", false, "bookworm", &out), 0);
	assert_int_equal(take(" continued\n: \n:\n", true, "bookworm", &out), 0);
	assert_false(apt_sources_mirror("", uri, sizeof uri));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_line),
	    cmocka_unit_test(deb822),
	    cmocka_unit_test(nothing_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
