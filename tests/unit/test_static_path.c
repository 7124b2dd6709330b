/* The deciders of the static role: paths, validators, ranges, codings, site.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/static/path.h"
#include "spaced/static/site.h"

static void paths(void **state)
{
	static const struct {
		const char *raw;
		int status;
		const char *path;
		bool slash;
	} cases[] = {
	    {"/", 0, "", false},
	    {"/a", 0, "a", false},
	    {"/a/b.html", 0, "a/b.html", false},
	    {"/a/", 0, "a", true},
	    {"/a%20b/%C3%BC.js", 0, "a b/ü.js", false},
	    {"/a+b", 0, "a+b", false},
	    {"/a%5Cb", 0, "a\\b", false},
	    {"/.well-known/security.txt", 0, ".well-known/security.txt", false},
	    {"/.gitattributes", 0, ".gitattributes", false},
	    {"/README.md", 0, "README.md", false},
	    {"/..a/b", 404, NULL, false},
	    {"/...", 404, NULL, false},
	    {"", 400, NULL, false},
	    {"*", 400, NULL, false},
	    {"a", 400, NULL, false},
	    {"/..", 400, NULL, false},
	    {"/../etc/passwd", 400, NULL, false},
	    {"/a/../b", 400, NULL, false},
	    {"/a/./b", 400, NULL, false},
	    {"/%2e%2e/b", 400, NULL, false},
	    {"/.%2e/b", 400, NULL, false},
	    {"/a%2fb", 400, NULL, false},
	    {"/a%2F..%2Fb", 400, NULL, false},
	    {"/a%00.html", 400, NULL, false},
	    {"/a%", 400, NULL, false},
	    {"/a%g1", 400, NULL, false},
	    {"//a", 404, NULL, false},
	    {"//evil.example/", 404, NULL, false},
	    {"/a//b", 404, NULL, false},
	    {"/.git/config", 404, NULL, false},
	    {"/.env", 404, NULL, false},
	    {"/%2eenv", 404, NULL, false},
	    {"/a/.htpasswd", 404, NULL, false},
	    {"/.well-known/.env", 404, NULL, false},
	    {"/a/.well-known/x", 404, NULL, false},
	    {"/.gitattributes/x", 404, NULL, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct buf b = BUF_INIT;
		bool slash;
		int status = static_path(STRZ(cases[i].raw), &b, &slash);
		if (status != cases[i].status)
			fail_msg("`%s`: %d", cases[i].raw, status);
		if (status == 0) {
			assert_string_equal(b.data, cases[i].path);
			assert_int_equal(slash, cases[i].slash);
		}
		buf_release(&b);
	}
}

static void ids_and_site_paths(void **state)
{
	(void)state;
	assert_true(site_id_ok(STR("rel_01-Ab")));
	assert_false(site_id_ok(STR("")));
	assert_false(site_id_ok(STR("..")));
	assert_false(site_id_ok(STR(".tmp-x")));
	assert_false(site_id_ok(STR("a/b")));
	assert_false(site_id_ok((struct str){"a\0b", 3}));
	assert_true(site_path_ok(""));
	assert_true(site_path_ok("dist"));
	assert_true(site_path_ok("a/b.html"));
	assert_false(site_path_ok("/a"));
	assert_false(site_path_ok("a/"));
	assert_false(site_path_ok("a//b"));
	assert_false(site_path_ok("../a"));
	assert_false(site_path_ok("a/./b"));
	assert_false(site_path_ok("a/.."));
}

static void immutable_names(void **state)
{
	(void)state;
	assert_true(static_immutable("main.3f2a9c04d1e8b7a6.js"));
	assert_true(static_immutable("static/js/2.0123456789abcdef.chunk.js"));
	assert_true(static_immutable("dist/assets/index-DkJ3f9aB.js"));
	assert_true(static_immutable("_app/immutable/chunks/x.js"));
	assert_true(static_immutable("assets/index-DkJ3f9aB.js"));
	assert_false(static_immutable("assets/cover-Photo01A.png"));
	assert_false(static_immutable("index-DkJ3f9aB.js"));
	assert_false(static_immutable("my_app/immutable/x.js"));
	assert_false(static_immutable("assets/photo-download.js"));
	assert_false(static_immutable("assets/index.js"));
	assert_false(static_immutable("index.html"));
	assert_false(static_immutable("jquery-3.7.1.min.js"));
	assert_false(static_immutable("20240101120000000000.js")); /* a date is no hash */
	assert_false(static_immutable("abcdefabcdefabcdef.js"));
}

static void codings(void **state)
{
	(void)state;
	assert_int_equal(static_coding(STR("")), CODING_NONE);
	assert_int_equal(static_coding(STR("gzip, deflate, br")), CODING_BR);
	assert_int_equal(static_coding(STR("gzip, deflate")), CODING_GZIP);
	assert_int_equal(static_coding(STR("GZIP")), CODING_GZIP);
	assert_int_equal(static_coding(STR("br;q=0, gzip")), CODING_GZIP);
	assert_int_equal(static_coding(STR("br;q=0.5 , gzip;q=0.8")), CODING_GZIP);
	assert_int_equal(static_coding(STR("br;q=0.8,gzip;q=0.8")), CODING_BR);
	assert_int_equal(static_coding(STR("*")), CODING_BR);
	assert_int_equal(static_coding(STR("*;q=0")), CODING_NONE);
	assert_int_equal(static_coding(STR("br;q=0, *")), CODING_GZIP);
	assert_int_equal(static_coding(STR("identity")), CODING_NONE);
	assert_int_equal(static_coding(STR("gzip;q=oops")), CODING_NONE);
	assert_int_equal(static_coding(STR("gzip;q=0.000")), CODING_NONE);
	assert_int_equal(static_coding(STR("gzip;q=0.001")), CODING_GZIP);
	assert_int_equal(static_coding(STR(",;,;q=1,")), CODING_NONE);
}

static void etags(void **state)
{
	(void)state;
	assert_true(static_etag_in(STR("\"a\""), "\"a\"", true));
	assert_true(static_etag_in(STR("\"b\", W/\"a\""), "\"a\"", true));
	assert_false(static_etag_in(STR("\"b\", W/\"a\""), "\"a\"", false));
	assert_true(static_etag_in(STR("*"), "\"a\"", false));
	assert_false(static_etag_in(STR("a"), "\"a\"", true));
	assert_false(static_etag_in(STR(""), "\"a\"", true));
}

static void ranges(void **state)
{
	static const struct {
		const char *value;
		uint64_t size;
		enum range what;
		uint64_t first, length;
	} cases[] = {
	    {"bytes=0-0", 10, RANGE_ONE, 0, 1},
	    {"bytes=2-5", 10, RANGE_ONE, 2, 4},
	    {"bytes=2-", 10, RANGE_ONE, 2, 8},
	    {"bytes=-3", 10, RANGE_ONE, 7, 3},
	    {"bytes=-30", 10, RANGE_ONE, 0, 10},
	    {"bytes=5-500", 10, RANGE_ONE, 5, 5},
	    {"Bytes= 5 - 6 ", 10, RANGE_ONE, 5, 2},
	    {"bytes=0-18446744073709551615", 10, RANGE_ONE, 0, 10},
	    {"bytes=10-", 10, RANGE_BAD, 0, 0},
	    {"bytes=99-100", 10, RANGE_BAD, 0, 0},
	    {"bytes=-0", 10, RANGE_BAD, 0, 0},
	    {"bytes=0-", 0, RANGE_BAD, 0, 0},
	    {"bytes=-1", 0, RANGE_BAD, 0, 0},
	    {"bytes=5-2", 10, RANGE_NONE, 0, 0},
	    {"bytes=-", 10, RANGE_NONE, 0, 0},
	    {"bytes=", 10, RANGE_NONE, 0, 0},
	    {"bytes=1", 10, RANGE_NONE, 0, 0},
	    {"bytes=a-b", 10, RANGE_NONE, 0, 0},
	    {"bytes=1-2-3", 10, RANGE_NONE, 0, 0},
	    {"bytes=0-1,4-5", 10, RANGE_NONE, 0, 0},
	    {"items=0-1", 10, RANGE_NONE, 0, 0},
	    {"bytes=18446744073709551616-", 10, RANGE_NONE, 0, 0},
	    {"", 10, RANGE_NONE, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t first = 0, length = 0;
		enum range got = static_range(STRZ(cases[i].value), cases[i].size, &first, &length);
		if (got != cases[i].what)
			fail_msg("`%s`: %d", cases[i].value, (int)got);
		if (got == RANGE_ONE) {
			assert_int_equal(first, cases[i].first);
			assert_int_equal(length, cases[i].length);
		}
	}
}

static void site_json(void **state)
{
	static const char text[] =
	    "{\"root\":\"dist\",\"index\":\"main.html\",\"redirect\":\"a/b.html\",\"headers\":{"
	    "\"cross-origin-embedder-policy\":\"require-corp\",\"Cache-Control\":\"no-store\","
	    "\"X-Evil\":\"a\\r\\nSet-Cookie: x\",\"Bad Name\":\"x\",\"Content-Length\":\"3\",\"X-Number\":3}}";
	struct site *s = site_parse(text, sizeof text - 1);

	(void)state;
	assert_string_equal(s->root, "dist");
	assert_string_equal(s->index, "main.html");
	assert_string_equal(s->redirect, "a/b.html");
	assert_int_equal(s->nheaders, 2);
	assert_string_equal(s->headers[0].name, "cross-origin-embedder-policy");
	assert_true(s->own_cache_control);
	site_put(s);
	s = site_parse("{\"root\":\"../x\",\"index\":\"/etc/passwd\",\"redirect\":\"\"}", 53);
	assert_string_equal(s->root, "");
	assert_string_equal(s->index, "index.html");
	assert_null(s->redirect);
	site_put(s);
	s = site_parse("rubbish", 7);
	assert_string_equal(s->root, "");
	site_put(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(paths),	       cmocka_unit_test(ids_and_site_paths),
	    cmocka_unit_test(immutable_names), cmocka_unit_test(codings),
	    cmocka_unit_test(etags),	       cmocka_unit_test(ranges),
	    cmocka_unit_test(site_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
