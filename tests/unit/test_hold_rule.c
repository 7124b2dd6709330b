/* How long which request waits for an app that sleeps, as one table of heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/hold_rule.h"

#define HOST "Host: a.test\r\n"
#define HTML "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
#define WS                                                                                                             \
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"                                   \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define PAGE 1500
#define API 60000
#define MOST 300000

static const struct {
	const char *name, *head;
	bool page;
	uint32_t wait_ms;
} cases[] = {
    {"a browser", "GET / HTTP/1.1\r\n" HOST HTML "Sec-Fetch-Mode: navigate\r\n\r\n", true, PAGE},
    {"an old browser", "GET / HTTP/1.1\r\n" HOST HTML "\r\n", true, PAGE},
    {"in a frame", "GET / HTTP/1.1\r\n" HOST HTML "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n\r\n", true,
     PAGE},
    {"fetch() of HTML", "GET / HTTP/1.1\r\n" HOST HTML "Sec-Fetch-Mode: cors\r\n\r\n", false, API},
    {"curl", "GET / HTTP/1.1\r\n" HOST "Accept: */*\r\n\r\n", false, API},
    {"no Accept", "GET / HTTP/1.1\r\n" HOST "\r\n", false, API},
    {"JSON", "GET /config HTTP/1.1\r\n" HOST "Accept: application/json\r\n\r\n", false, API},
    {"events", "GET /q HTTP/1.1\r\n" HOST "Accept: text/event-stream\r\n\r\n", false, API},
    {"HEAD", "HEAD / HTTP/1.1\r\n" HOST HTML "\r\n", false, API},
    {"a form", "POST / HTTP/1.1\r\n" HOST HTML "Sec-Fetch-Mode: navigate\r\nContent-Length: 1\r\n\r\n", false, API},
    {"GET with a body", "GET / HTTP/1.1\r\n" HOST HTML "Content-Length: 1\r\n\r\n", false, API},
    {"WebSocket", "GET /ws HTTP/1.1\r\n" HOST HTML WS "\r\n", false, API},
    {"says how long", "GET / HTTP/1.1\r\n" HOST HTML "X-Scale-Up-Timeout: 7\r\n\r\n", false, 7000},
    {"in any case", "GET / HTTP/1.1\r\n" HOST "x-scale-up-TIMEOUT: 90\r\n\r\n", false, 90000},
    {"not at all", "POST / HTTP/1.1\r\n" HOST "X-Scale-Up-Timeout: 0\r\n\r\n", false, 0},
    {"more than the most", "GET / HTTP/1.1\r\n" HOST "X-Scale-Up-Timeout: 999999999\r\n\r\n", false, MOST},
    {"ten digits", "GET / HTTP/1.1\r\n" HOST "X-Scale-Up-Timeout: 9999999999\r\n\r\n", false, API},
    {"no number", "GET / HTTP/1.1\r\n" HOST HTML "X-Scale-Up-Timeout: soon\r\n\r\n", true, PAGE},
    {"less than none", "GET / HTTP/1.1\r\n" HOST "X-Scale-Up-Timeout: -1\r\n\r\n", false, API},
    {"empty", "GET / HTTP/1.1\r\n" HOST "X-Scale-Up-Timeout:\r\n\r\n", false, API},
};

static void every_kind(void **state)
{
	static struct http1_request r;
	const struct http1_limits heads = {.head_bytes = 32768, .fields = 100, .url_bytes = 8192};
	const struct proxy_limits limits = {.hold_ms = API, .hold_max_ms = MOST, .hold_page_ms = PAGE};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(http1_parse_request(cases[i].head, strlen(cases[i].head), &heads, &r), 0);
		struct hold_rule rule = hold_rule_of(&r, &limits);
		if (rule.page != cases[i].page || rule.wait_ms != cases[i].wait_ms)
			fail_msg("%s: page %d, %u ms", cases[i].name, rule.page, rule.wait_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
