/* Content types, and the small parsers of spaced/http/url.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/http/mime.h"
#include "spaced/http/url.h"

static void types(void **state)
{
	static const struct {
		const char *path, *type;
		bool compress;
	} cases[] = {
	    {"index.html", "text/html; charset=utf-8", true},
	    {"a/b.c/APP.JS", "text/javascript; charset=utf-8", true},
	    {"x.mjs", "text/javascript; charset=utf-8", true},
	    {"x.css", "text/css; charset=utf-8", true},
	    {"x.json", "application/json", true},
	    {"x.js.map", "application/json", true},
	    {"x.wasm", "application/wasm", true},
	    {"x.svg", "image/svg+xml", true},
	    {"x.avif", "image/avif", false},
	    {"x.webp", "image/webp", false},
	    {"x.png", "image/png", false},
	    {"x.woff2", "font/woff2", false},
	    {"x.mp4", "video/mp4", false},
	    {"x.tar.gz", "application/gzip", false},
	    {"README.md", "text/markdown; charset=utf-8", true},
	    {".gitattributes", "text/plain; charset=utf-8", true},
	    {"LICENSE", "text/plain; charset=utf-8", true},
	    {"dir.html/LICENSE", "text/plain; charset=utf-8", true},
	    {"x.unknown", "application/octet-stream", false},
	    {"x.", "application/octet-stream", false},
	    {"model.onnx", "application/octet-stream", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_string_equal(mime_of(cases[i].path)->type, cases[i].type);
		assert_int_equal(mime_of(cases[i].path)->compress, cases[i].compress);
	}
}

/* bsearch finds each row only when the table is sorted: ends and middle stand for all. */
static void table_is_sorted(void **state)
{
	static const char *const exts[] = {"7z",  "aac",	 "apng",  "atom", "avi",  "br",	 "eot",
					   "glb", "htm",	 "ico",	  "jxl",  "m3u8", "mkv", "ndjson",
					   "ogg", "otf",	 "pdf",	  "rss",  "ts",	  "ttf", "vtt",
					   "wav", "webmanifest", "xhtml", "xz",	  "yml",  "zip", "zst"};

	(void)state;
	for (size_t i = 0; i < sizeof exts / sizeof *exts; i++) {
		char name[32];
		snprintf(name, sizeof name, "f.%s", exts[i]);
		assert_string_equal(mime_of(name)->ext, exts[i]);
	}
}

static void decoding(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
		bool plus;
	} cases[] = {
	    {"abc", "abc", false},  {"a%20b", "a b", false}, {"a+b", "a+b", false}, {"a+b", "a b", true},
	    {"%C3%a9", "é", false}, {"%", NULL, false},	     {"%2", NULL, false},   {"%zz", NULL, false},
	    {"a%00b", NULL, false}, {"%25", "%", false},     {"", "", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct buf b = BUF_INIT;
		bool ok = url_decode(STRZ(cases[i].in), cases[i].plus, &b);
		assert_int_equal(ok, cases[i].out != NULL);
		if (ok)
			assert_string_equal(b.data ? b.data : "", cases[i].out);
		buf_release(&b);
	}
}

static void queries(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_true(url_query_get(STR("a=1&&b=x%20y+z&a=2&c&d="), "a", &b));
	assert_string_equal(b.data, "1");
	buf_clear(&b);
	assert_true(url_query_get(STR("a=1&&b=x%20y+z&a=2&c&d="), "b", &b));
	assert_string_equal(b.data, "x y z");
	buf_clear(&b);
	assert_true(url_query_get(STR("a=1&c&d="), "c", &b));
	assert_true(url_query_get(STR("a=1&c&%64="), "d", &b));
	assert_int_equal(b.len, 0);
	assert_false(url_query_get(STR("a=1&c&d="), "e", &b));
	assert_false(url_query_get(STR("a=%"), "a", &b));
	assert_false(url_query_get(STR(""), "", &b));
	buf_release(&b);
}

static void encoding(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	url_encode("a b/ü\\?", 8, true, &b);
	assert_string_equal(b.data, "a%20b/%C3%BC%5C%3F");
	buf_clear(&b);
	url_encode("a/b", 3, false, &b);
	assert_string_equal(b.data, "a%2Fb");
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(types),   cmocka_unit_test(table_is_sorted), cmocka_unit_test(decoding),
	    cmocka_unit_test(queries), cmocka_unit_test(encoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
