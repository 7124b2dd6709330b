/* llhttp must be the strict build (LLHTTP_STRICT_MODE=1 of version 8, or any version 9): each payload here passes through
 * the loose build and smuggles something. Losing the flag in the Makefile makes these fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <llhttp.h>

static llhttp_errno_t parse(const char *bytes)
{
	llhttp_settings_t settings;
	llhttp_t parser;

	llhttp_settings_init(&settings);
	llhttp_init(&parser, HTTP_REQUEST, &settings);
	return llhttp_execute(&parser, bytes, strlen(bytes));
}

static void strict(void **state)
{
	static const char *const smuggle[] = {
	    /* A bare CR after an empty value swallows the next character (CVE-2023-30589). */
	    "POST / HTTP/1.1\r\nHost: a\r\nX:\rTransfer-Encoding: chunked\r\n\r\n",
	    /* Chunk data that is not followed by CRLF. */
	    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
	    /* A CR inside a chunk extension. */
	    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
	    /* A byte with the high bit in the target. */
	    "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
	    /* More behind a request that said it is the last. */
	    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof smuggle / sizeof *smuggle; i++)
		if (parse(smuggle[i]) == HPE_OK)
			fail_msg("accepted, is LLHTTP_STRICT_MODE lost? %s", smuggle[i]);
}

static void sane(void **state)
{
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"), HPE_OK);
	assert_int_equal(
	    parse("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"),
	    HPE_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(strict), cmocka_unit_test(sane)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
