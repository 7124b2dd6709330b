/* The pages that the proxy answers by itself, whatever the text in them is: that of an app's log, say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "proxy/errpage.h"

static const char *body_of(const struct page *p, enum page_format format, struct buf *out)
{
	const struct page_reader to = {.format = format, .minor = 1, .request_id = "id", .date = "now"};

	buf_clear(out);
	page_write(p, &to, out);
	const char *body = strstr(out->data, "\r\n\r\n");
	assert_non_null(body);
	return body + 4;
}

static void json_is_json(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
	    {"Ended.\n\nLast lines:\n\"quoted\" \\ \t", "Ended.\n\nLast lines:\n\"quoted\" \\ \t"},
	    {"caf\xc3\xa9 \xf0\x9f\x9a\x80", "caf\xc3\xa9 \xf0\x9f\x9a\x80"},
	    {"caf\xe9", "caf\xef\xbf\xbd"},
	    {"cut \xf0\x9f\x9a", "cut \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	    {"\x1b[2J\x7f", "\x1b[2J\x7f"},
	};
	cleanup_buf struct buf out = BUF_INIT;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct page p = {.status = 503, .title = rows[i].text, .text = rows[i].text};
		json_t *j = json_loads(body_of(&p, PAGE_JSON, &out), 0, NULL);
		assert_non_null(j);
		assert_string_equal(json_string_value(json_object_get(j, "error")), rows[i].says);
		assert_string_equal(json_string_value(json_object_get(j, "message")), rows[i].says);
		assert_int_equal(json_integer_value(json_object_get(j, "status")), 503);
		json_decref(j);
	}
}

static void html_is_text(void **state)
{
	const struct page p = {.status = 503, .title = "</title><b>", .text = "<i>\n\n</pre><script>", .headers = ""};
	cleanup_buf struct buf out = BUF_INIT;
	const char *body = body_of(&p, PAGE_HTML, &out);

	assert_null(strstr(body, "<b>"));
	assert_null(strstr(body, "<i>"));
	assert_null(strstr(body, "<script>"));
	assert_non_null(strstr(body, "&lt;/pre&gt;&lt;script&gt;"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(json_is_json),
	    cmocka_unit_test(html_is_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
