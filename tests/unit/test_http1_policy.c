/* The HTTP policy as one table: each case a request (or response) head, what becomes of it, and the rule. The cases re-express
 * the published lists (Http11Probe, llhttp's own corpus, the smuggling literature). "R4" is the number of the rule in our
 * list, then the section of the RFC. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/http1.h"

static const struct http1_limits limits = {.head_bytes = 32768, .fields = 100, .url_bytes = 8192};

/* A literal that may hold NUL bytes. */
#define B(s)                                                                                                           \
	{                                                                                                              \
		s, sizeof(s) - 1                                                                                       \
	}
#define HOST "Host: a.test\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define END "\r\n"

static const struct {
	const char *rule;
	struct str head;
	int status; /* 0: accepted */
} requests[] = {
    /* Framing. */
    {"R1 9112-6.3 CL then TE", B(POST "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n" END), 400},
    {"R1 9112-6.3 TE then CL", B(POST "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n" END), 400},
    {"R1 CL 0 and TE", B(POST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" END), 400},
    {"R2 9112-6.1 chunked", B(POST "Transfer-Encoding: chunked\r\n" END), 0},
    {"R2 case", B(POST "transfer-encoding: CHUNKED\r\n" END), 0},
    {"R2 white space around", B(POST "Transfer-Encoding: \t chunked \t\r\n" END), 0},
    {"R2 unknown coding", B(POST "Transfer-Encoding: xchunked\r\n" END), 400},
    {"R2 chunked with a suffix", B(POST "Transfer-Encoding: chunkedx\r\n" END), 400},
    {"R2 identity", B(POST "Transfer-Encoding: identity\r\n" END), 400},
    {"R2 gzip", B(POST "Transfer-Encoding: gzip\r\n" END), 400},
    {"R2 gzip, chunked", B(POST "Transfer-Encoding: gzip, chunked\r\n" END), 400},
    {"R2 chunked, gzip", B(POST "Transfer-Encoding: chunked, gzip\r\n" END), 400},
    {"R2 chunked, chunked", B(POST "Transfer-Encoding: chunked, chunked\r\n" END), 400},
    {"R2 two fields", B(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), 400},
    {"R2 identity and chunked", B(POST "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n" END), 400},
    {"R2 empty", B(POST "Transfer-Encoding:\r\n" END), 400},
    {"R2 leading comma", B(POST "Transfer-Encoding: ,chunked\r\n" END), 400},
    {"R2 quoted", B(POST "Transfer-Encoding: \"chunked\"\r\n" END), 400},
    {"R2 single quotes", B(POST "Transfer-Encoding: 'chunked'\r\n" END), 400},
    {"R2 parameter", B(POST "Transfer-Encoding: chunked;a=b\r\n" END), 400},
    {"R2 vertical tab", B(POST "Transfer-Encoding: \vchunked\r\n" END), 400},
    {"R2 form feed", B(POST "Transfer-Encoding: chunked\f\r\n" END), 400},
    {"R2 NUL", B(POST "Transfer-Encoding: chunked\0\r\n" END), 400},
    {"R2 high byte", B(POST "Transfer-Encoding: chunked\xa0\r\n" END), 400},
    {"R2 on HTTP/1.0", B("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n" END), 400},
    {"R3 length", B(POST "Content-Length: 5\r\n" END), 0},
    {"R3 leading zeros", B(POST "Content-Length: 005\r\n" END), 0},
    {"R3 18 digits", B(POST "Content-Length: 999999999999999999\r\n" END), 0},
    {"R3 19 digits", B(POST "Content-Length: 1000000000000000000\r\n" END), 400},
    {"R3 overflow", B(POST "Content-Length: 18446744073709551621\r\n" END), 400},
    {"R3 twice, same", B(POST "Content-Length: 5\r\nContent-Length: 5\r\n" END), 400},
    {"R3 twice, other", B(POST "Content-Length: 5\r\nContent-Length: 6\r\n" END), 400},
    {"R3 list", B(POST "Content-Length: 5, 5\r\n" END), 400},
    {"R3 plus", B(POST "Content-Length: +5\r\n" END), 400},
    {"R3 minus", B(POST "Content-Length: -5\r\n" END), 400},
    {"R3 hex", B(POST "Content-Length: 0x5\r\n" END), 400},
    {"R3 octal", B(POST "Content-Length: 0o5\r\n" END), 400},
    {"R3 float", B(POST "Content-Length: 5.0\r\n" END), 400},
    {"R3 exponent", B(POST "Content-Length: 5e1\r\n" END), 400},
    {"R3 underscore", B(POST "Content-Length: 1_0\r\n" END), 400},
    {"R3 inner space", B(POST "Content-Length: 1 0\r\n" END), 400},
    {"R3 inner tab", B(POST "Content-Length: 1\t0\r\n" END), 400},
    {"R3 vertical tab", B(POST "Content-Length: \v5\r\n" END), 400},
    {"R3 NUL", B(POST "Content-Length: 5\0\r\n" END), 400},
    {"R3 empty", B(POST "Content-Length:\r\n" END), 400},
    {"R3 words", B(POST "Content-Length: five\r\n" END), 400},
    {"R3 fullwidth digit", B(POST "Content-Length: \xef\xbc\x95\r\n" END), 400},
    {"R3 trailing semicolon", B(POST "Content-Length: 5;\r\n" END), 400},
    {"9110-9.3.1 GET with a body is framed", B(GET "Content-Length: 5\r\n" END), 0},

    /* Lines and fields. */
    {"R4 9112-5.2 fold, space", B(GET "X: a\r\n b\r\n" END), 400},
    {"R4 fold, tab", B(GET "X: a\r\n\tb\r\n" END), 400},
    {"R4 fold of TE", B(POST "Transfer-Encoding:\r\n chunked\r\n" END), 400},
    {"R4 fold of CL", B(POST "Content-Length:\r\n 5\r\n" END), 400},
    {"R4 fold of the first line", B("GET / HTTP/1.1\r\n " HOST END), 400},
    {"R4 line of white space", B(GET " \r\n" END), 400},
    {"R4 9112-2.2 bare CR in a value", B(GET "X: a\rb\r\n" END), 400},
    {"R4 bare CR after an empty value", B(GET "X:\rTransfer-Encoding: chunked\r\n" END), 400},
    {"R4 bare CR in a name", B(GET "X\rY: a\r\n" END), 400},
    {"R4 CR CR LF", B(GET "X: a\r\r\n" END), 400},
    {"R4 bare CR in the request line", B("GET /\r HTTP/1.1\r\n" HOST END), 400},
    {"R4 CR instead of space", B("GET\r/ HTTP/1.1\r\n" HOST END), 400},
    {"R4 bare LF in a value", B(GET "X: a\nY: b\r\n" END), 400},
    {"R4 bare LF in the request line", B("GET / HTTP/1.1\n" HOST END), 400},
    {"R4 NUL in a value", B(GET "X: a\0b\r\n" END), 400},
    {"R4 NUL in a name", B(GET "X\0: a\r\n" END), 400},
    {"R4 NUL in the target", B("GET /\0 HTTP/1.1\r\n" HOST END), 400},
    {"R4 control byte in a value", B(GET "X: a\x01\r\n" END), 400},
    {"R4 DEL in a value", B(GET "X: a\x7f\r\n" END), 400},
    {"R4 escape in a value", B(GET "X: \x1b[31m\r\n" END), 400},
    {"R4 9112-5.1 space before the colon", B(GET "X : a\r\n" END), 400},
    {"R4 tab before the colon", B(GET "X\t: a\r\n" END), 400},
    {"R4 space before the colon of CL", B(POST "Content-Length : 5\r\n" END), 400},
    {"R4 space before the colon of Host", B("GET / HTTP/1.1\r\nHost : a.test\r\n" END), 400},
    {"R4 space in a name", B(GET "X Y: a\r\n" END), 400},
    {"R4 empty name", B(GET ": a\r\n" END), 400},
    {"R4 no colon", B(GET "X\r\n" END), 400},
    {"R4 no token: bracket", B(GET "X[]: a\r\n" END), 400},
    {"R4 no token: slash", B(GET "X/Y: a\r\n" END), 400},
    {"R4 no token: quote", B(GET "\"X\": a\r\n" END), 400},
    {"R4 no token: high byte", B(GET "X\xc3\xa4: a\r\n" END), 400},
    {"9110-5.5 tab inside a value", B(GET "X: a\tb\r\n" END), 0},
    {"9110-5.5 high bytes in a value", B(GET "X: \xc3\xa4\r\n" END), 0},
    {"9110-5.5 empty value", B(GET "X:\r\n" END), 0},
    {"9110-5.6.2 odd token", B(GET "!#$%&'*+-.^`|~: a\r\n" END), 0},
    {"colons in a value", B(GET "X: a:b:c\r\n" END), 0},

    /* Host. */
    {"R5 9112-3.2 none", B("GET / HTTP/1.1\r\n" END), 400},
    {"R5 none in HTTP/1.0", B("GET / HTTP/1.0\r\n" END), 400},
    {"R5 two", B(GET HOST END), 400},
    {"R5 two, different", B(GET "Host: b.test\r\n" END), 400},
    {"R5 empty", B("GET / HTTP/1.1\r\nHost:\r\n" END), 400},
    {"R5 list", B("GET / HTTP/1.1\r\nHost: a.test, b.test\r\n" END), 400},
    {"R5 userinfo", B("GET / HTTP/1.1\r\nHost: b.test@a.test\r\n" END), 400},
    {"R5 path", B("GET / HTTP/1.1\r\nHost: a.test/x\r\n" END), 400},
    {"R5 scheme", B("GET / HTTP/1.1\r\nHost: http://a.test\r\n" END), 400},
    {"R5 inner space", B("GET / HTTP/1.1\r\nHost: a.test b.test\r\n" END), 400},
    {"R5 backslash", B("GET / HTTP/1.1\r\nHost: a.test\\b\r\n" END), 400},
    {"R5 port of letters", B("GET / HTTP/1.1\r\nHost: a.test:http\r\n" END), 400},
    {"R5 port too large", B("GET / HTTP/1.1\r\nHost: a.test:65536\r\n" END), 400},
    {"R5 case, dot, port", B("GET / HTTP/1.1\r\nHost: A.Test.:8080\r\n" END), 0},
    {"R5 absolute-form agrees", B("GET http://a.test/ HTTP/1.1\r\n" HOST END), 0},
    {"R5 absolute-form, other case", B("GET http://A.test/ HTTP/1.1\r\n" HOST END), 0},
    {"R5 absolute-form, no path", B("GET http://a.test HTTP/1.1\r\n" HOST END), 0},
    {"R5 absolute-form disagrees", B("GET http://b.test/ HTTP/1.1\r\n" HOST END), 400},
    {"R5 absolute-form, other port", B("GET http://a.test:81/ HTTP/1.1\r\n" HOST END), 400},
    {"R5 absolute-form, userinfo", B("GET http://x@a.test/ HTTP/1.1\r\n" HOST END), 400},
    {"R5 absolute-form, no Host", B("GET http://a.test/ HTTP/1.1\r\n" END), 400},
    {"R5 absolute-form, empty host", B("GET http:/// HTTP/1.1\r\n" HOST END), 400},
    {"R5 absolute-form, query only", B("GET http://a.test?x HTTP/1.1\r\n" HOST END), 400},
    {"R5 other scheme", B("GET ftp://a.test/ HTTP/1.1\r\n" HOST END), 400},

    /* Request line. */
    {"R6 9112-3 two spaces", B("GET  / HTTP/1.1\r\n" HOST END), 400},
    {"R6 two spaces before the version", B("GET /  HTTP/1.1\r\n" HOST END), 400},
    {"R6 trailing space", B("GET / HTTP/1.1 \r\n" HOST END), 400},
    {"R6 leading space", B(" GET / HTTP/1.1\r\n" HOST END), 400},
    {"R6 tab", B("GET\t/ HTTP/1.1\r\n" HOST END), 400},
    {"R6 space in the target", B("GET /a b HTTP/1.1\r\n" HOST END), 400},
    {"R6 no version", B("GET /\r\n" HOST END), 400},
    {"R6 no target", B("GET HTTP/1.1\r\n" HOST END), 400},
    {"R6 lower-case method", B("get / HTTP/1.1\r\n" HOST END), 501},
    {"R6 unknown method", B("BREW / HTTP/1.1\r\n" HOST END), 501},
    {"R6 RTSP method", B("DESCRIBE / HTTP/1.1\r\n" HOST END), 501},
    {"R6 ICE method", B("SOURCE / HTTP/1.1\r\n" HOST END), 501},
    {"R6 WebDAV method", B("PROPFIND / HTTP/1.1\r\n" HOST END), 501},
    {"R6 no token", B("G(T / HTTP/1.1\r\n" HOST END), 400},
    {"R6 CONNECT", B("CONNECT a.test:443 HTTP/1.1\r\n" HOST END), 405},
    {"R6 TRACE", B("TRACE / HTTP/1.1\r\n" HOST END), 405},
    {"R6 RTSP version", B("GET / RTSP/1.0\r\n" HOST END), 400},
    {"R6 lower-case version", B("GET / http/1.1\r\n" HOST END), 400},
    {"R6 HTTP/1.2", B("GET / HTTP/1.2\r\n" HOST END), 505},
    {"R6 HTTP/2.0", B("GET / HTTP/2.0\r\n" HOST END), 505},
    {"R6 HTTP/0.9", B("GET / HTTP/0.9\r\n" HOST END), 505},
    {"R6 HTTP/1", B("GET / HTTP/1\r\n" HOST END), 400},
    {"R6 HTTP/1.10", B("GET / HTTP/1.10\r\n" HOST END), 400},
    {"R6 HTTP/01.1", B("GET / HTTP/01.1\r\n" HOST END), 400},
    {"R6 HTTP/1,1", B("GET / HTTP/1,1\r\n" HOST END), 400},
    {"R6 * for GET", B("GET * HTTP/1.1\r\n" HOST END), 400},
    {"R6 * for OPTIONS", B("OPTIONS * HTTP/1.1\r\n" HOST END), 0},
    {"R6 authority-form", B("GET a.test:80 HTTP/1.1\r\n" HOST END), 400},
    {"R6 relative", B("GET index.html HTTP/1.1\r\n" HOST END), 400},
    {"R6 query only", B("GET ?x HTTP/1.1\r\n" HOST END), 400},
    {"R6 fragment", B("GET /#x HTTP/1.1\r\n" HOST END), 400},
    {"R6 high byte in the target", B("GET /\xc3\xa4 HTTP/1.1\r\n" HOST END), 400},
    {"R6 DEL in the target", B("GET /\x7f HTTP/1.1\r\n" HOST END), 400},
    {"R6 encoded and odd bytes pass", B("GET /%00/../..;a=b?x[]={}|\\^`\"<> HTTP/1.1\r\n" HOST END), 0},
    {"R6 double slash", B("GET //evil.test/ HTTP/1.1\r\n" HOST END), 0},
    {"9112-2.2 one empty line before", B("\r\n" GET END), 0},
    {"9112-2.2 two empty lines before", B("\r\n\r\n"), 400},
    {"R6 all methods: HEAD", B("HEAD / HTTP/1.1\r\n" HOST END), 0},
    {"R6 all methods: PUT", B("PUT / HTTP/1.1\r\n" HOST END), 0},
    {"R6 all methods: PATCH", B("PATCH / HTTP/1.1\r\n" HOST END), 0},
    {"R6 all methods: DELETE", B("DELETE / HTTP/1.1\r\n" HOST END), 0},
    {"R6 all methods: OPTIONS", B("OPTIONS / HTTP/1.1\r\n" HOST END), 0},

    /* Hop-by-hop. */
    {"R8 9110-7.6.1 close", B(GET "Connection: close\r\n" END), 0},
    {"R8 nominates Host", B(GET "Connection: Host\r\n" END), 400},
    {"R8 nominates Content-Length", B(POST "Content-Length: 5\r\nConnection: close, content-length\r\n" END), 400},
    {"R8 nominates Transfer-Encoding", B(POST "Connection: Transfer-Encoding\r\n" END), 400},
    {"R8 nominates Cookie", B(GET "Connection: cookie\r\n" END), 400},
    {"R8 nominates Authorization", B(GET "Connection: Authorization\r\n" END), 400},
    {"R8 nominates X-Forwarded-For", B(GET "Connection: x-forwarded-for\r\n" END), 400},
    {"R8 nominates Forwarded", B(GET "Connection: forwarded\r\n" END), 400},
    {"R8 nominates X-Real-IP", B(GET "Connection: X-Real-IP\r\n" END), 400},
    {"R8 nominates X-Spaced-Site", B(GET "Connection: X-Spaced-Site\r\n" END), 400},
    {"R8 in a second field", B(GET "Connection: close\r\nConnection: Host\r\n" END), 400},
    {"R8 no token", B(GET "Connection: a b\r\n" END), 400},
    {"R8 empty elements", B(GET "Connection: , ,close,,\r\n" END), 0},
    {"R8 TE", B(GET "TE: trailers\r\nConnection: TE\r\n" END), 0},

    /* Expect, upgrades, HTTP/2. */
    {"R13 9110-10.1.1", B(POST "Content-Length: 5\r\nExpect: 100-continue\r\n" END), 0},
    {"R13 case", B(POST "Content-Length: 5\r\nExpect: 100-Continue\r\n" END), 0},
    {"R13 other", B(POST "Content-Length: 5\r\nExpect: 200-ok\r\n" END), 417},
    {"R13 obfuscated", B(POST "Content-Length: 5\r\nExpect: y 100-continue\r\n" END), 417},
    {"R13 twice", B(POST "Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n" END), 417},
    {"R13 without a body", B(GET "Expect: 100-continue\r\n" END), 0},
    {"R13 ignored in HTTP/1.0", B("POST / HTTP/1.0\r\n" HOST "Content-Length: 5\r\nExpect: x\r\n" END), 0},
    {"R17 PRI", B("PRI * HTTP/2.0\r\n\r\n"), 505},
    {"R17 h2c is a plain request",
     B(GET "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n" END), 0},
#define WS "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    {"R14 6455-4.2.1", B(GET WS KEY END), 0},
    {"R14 no key", B(GET WS END), 400},
    {"R14 two keys", B(GET WS KEY KEY END), 400},
    {"R14 short key", B(GET WS "Sec-WebSocket-Key: abc\r\n" END), 400},
    {"R14 key of other bytes", B(GET WS "Sec-WebSocket-Key: dGhlIHNhb\"BsZSBub25jZQ==\r\n" END), 400},
    {"R14 no version", B(GET "Connection: Upgrade\r\nUpgrade: websocket\r\n" KEY END), 400},
    {"R14 POST", B(POST WS KEY END), 400},
    {"R14 with a body", B(GET WS KEY "Content-Length: 5\r\n" END), 400},
    {"R14 chunked", B(GET WS KEY "Transfer-Encoding: chunked\r\n" END), 400},
};

static int parse(struct str head, struct http1_request *r)
{
	/* As client.c does it: the end of the head is found first. */
	ssize_t end = http1_head_end(head.p, head.n, 0);

	if (end == -EBADMSG)
		return 400;
	return http1_parse_request(head.p, end ? (size_t)end : head.n, &limits, r);
}

static void request_table(void **state)
{
	static struct http1_request r;
	int failed = 0;

	for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
		int status = parse(requests[i].head, &r);
		if (status == requests[i].status && (status == 0 || r.why || status == 400))
			continue;
		print_error("%s: %d, expected %d (%s)\n", requests[i].rule, status, requests[i].status,
			    r.why ? r.why : "");
		failed++;
	}
	assert_int_equal(failed, 0);
}

static void head_end(void **state)
{
	static const char head[] = GET "X: a\r\n\r\nbody";
	size_t end = sizeof head - 1 - 4;

	for (size_t seen = 0; seen < end; seen++)
		for (size_t n = seen; n < sizeof head; n++)
			assert_int_equal(http1_head_end(head, n, seen), n >= end ? (ssize_t)end : 0);
	assert_int_equal(http1_head_end("\n", 1, 0), -EBADMSG);
	assert_int_equal(http1_head_end("GET / HTTP/1.1\n", 15, 0), -EBADMSG);
	assert_int_equal(http1_head_end("a\r\nb\n", 5, 3), -EBADMSG);
}

static void limits_table(void **state)
{
	static struct http1_request r;
	cleanup_buf struct buf b = BUF_INIT;

	for (int over = 0; over < 2; over++) {
		buf_clear(&b);
		buf_adds(&b, "GET /");
		for (unsigned i = 0; i < limits.url_bytes - 1 + (unsigned)over; i++)
			buf_addc(&b, 'a');
		buf_adds(&b, " HTTP/1.1\r\n" HOST END);
		assert_int_equal(parse((struct str){b.data, b.len}, &r), over ? 414 : 0);

		buf_clear(&b);
		buf_adds(&b, GET);
		for (unsigned i = 0; i < limits.fields - 1 + (unsigned)over; i++)
			buf_adds(&b, "A: b\r\n");
		buf_adds(&b, END);
		assert_int_equal(parse((struct str){b.data, b.len}, &r), over ? 431 : 0);

		buf_clear(&b);
		buf_adds(&b, GET "X: ");
		while (b.len < limits.head_bytes - 4 + (unsigned)over)
			buf_addc(&b, 'a');
		buf_adds(&b, END END);
		assert_int_equal(parse((struct str){b.data, b.len}, &r), over ? 431 : 0);
	}
	/* Too many options of Connection. */
	buf_clear(&b);
	buf_adds(&b, GET "Connection: a");
	for (int i = 0; i < 50; i++)
		buf_adds(&b, ",a");
	buf_adds(&b, END END);
	assert_int_equal(parse((struct str){b.data, b.len}, &r), 400);
}

static const struct {
	const char *in, *out;
} forwarded[] = {
    {GET END, "GET / HTTP/1.1\r\nHost: a.test\r\n@\r\n"},
    {"GET http://A.test/p?q HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
     "GET /p?q HTTP/1.1\r\nHost: A.test\r\n@\r\n"},
    {GET "X:  a \r\nx-b:c\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\nx-b: c\r\n@\r\n"},
    {GET "X_Y: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.test\r\n@\r\n"},
    {GET "X-Forwarded-For: 6.6.6.6\r\nX-FORWARDED-ANY: x\r\nForwarded: for=x\r\nX-Real-Ip: x\r\nX-Spaced-User: "
	 "root\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.test\r\n@\r\n"},
    {GET "Connection: X-Hop, close\r\nX-Hop: 1\r\nx-hop: 2\r\nKeep-Alive: 5\r\nTE: x\r\nTrailer: "
	 "y\r\nProxy-Connection: z\r\n"
	 "Proxy-Authorization: w\r\nUpgrade: h2c\r\nHTTP2-Settings: v\r\nX-Kept: u\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.test\r\nX-Kept: u\r\n@\r\n"},
    {POST "Content-Length: 005\r\nExpect: 100-continue\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n@\r\n"},
    {POST "Content-Length: 0\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n@\r\n"},
    {POST "Transfer-Encoding: Chunked\r\nCookie: a=b\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: a.test\r\nCookie: a=b\r\nTransfer-Encoding: chunked\r\n@\r\n"},
    {GET WS KEY "Sec-WebSocket-Protocol: x\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a.test\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
     "Sec-WebSocket-Protocol: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n@\r\n"},
};

static void forward_table(void **state)
{
	static struct http1_request r;
	struct http1_forward f = {
	    .client = STR("192.0.2.1"), .proto = "http", .port = 7000, .request_id = STR("id"), .site = ""};

	for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
		cleanup_buf struct buf got = BUF_INIT;
		assert_int_equal(parse(STRZ(forwarded[i].in), &r), 0);
		http1_write_request(&r, &f, &got);
		/* "@" stands for what the proxy says itself. */
		cleanup_buf struct buf want = BUF_INIT;
		const char *at = strchr(forwarded[i].out, '@');
		const char *host = strstr(forwarded[i].out, "Host: ") + 6;
		int n = (int)strcspn(host, "\r");
		buf_add(&want, forwarded[i].out, (size_t)(at - forwarded[i].out));
		buf_addf(&want,
			 "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
			 "X-Forwarded-Host: %.*s\r\nX-Forwarded-Port: 7000\r\nForwarded: "
			 "for=192.0.2.1;host=\"%.*s\";proto=http\r\n"
			 "X-Request-Id: id\r\n",
			 n, host, n, host);
		buf_adds(&want, at + 1);
		assert_string_equal(got.data, want.data);
	}
}

static void forward_ipv6_site_port(void **state)
{
	static struct http1_request r;
	struct http1_forward f = {
	    .client = STR("2001:db8::1"), .proto = "https", .port = 1, .request_id = STR("i"), .site = "rel-1"};
	cleanup_buf struct buf got = BUF_INIT;

	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"), &r), 0);
	http1_write_request(&r, &f, &got);
	assert_non_null(strstr(got.data, "Forwarded: for=\"[2001:db8::1]\";host=\"[::1]:8443\";proto=https\r\n"));
	assert_non_null(strstr(got.data, "X-Forwarded-Port: 8443\r\n"));
	assert_non_null(strstr(got.data, "X-Spaced-Site: rel-1\r\n"));
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"), &r), 0);
	buf_clear(&got);
	http1_write_request(&r, &f, &got);
	assert_non_null(strstr(got.data, "X-Forwarded-Port: 1\r\n"));
}

static void keep_alive(void **state)
{
	static struct http1_request r;

	parse(STR(GET END), &r);
	assert_true(r.keep_alive);
	parse(STR(GET "Connection: Close\r\n" END), &r);
	assert_false(r.keep_alive);
	parse(STR(GET "Connection: keep-alive, close\r\n" END), &r);
	assert_false(r.keep_alive);
	parse(STR("GET / HTTP/1.0\r\n" HOST END), &r);
	assert_false(r.keep_alive);
	parse(STR("GET / HTTP/1.0\r\n" HOST "Connection: Keep-Alive\r\n" END), &r);
	assert_true(r.keep_alive);
}

#define OK "HTTP/1.1 200 OK\r\n"
static const struct {
	const char *rule;
	struct str head;
	enum http1_method method;
	bool websocket;
	int status; /* 0: refused */
	enum http1_body body;
	bool keep;
} responses[] = {
    {"length", B(OK "Content-Length: 5\r\n" END), HTTP1_GET, false, 200, HTTP1_LENGTH, true},
    {"zero", B(OK "Content-Length: 0\r\n" END), HTTP1_GET, false, 200, HTTP1_NO_BODY, true},
    {"chunked", B(OK "Transfer-Encoding: chunked\r\n" END), HTTP1_GET, false, 200, HTTP1_CHUNKED, true},
    {"until close", B(OK END), HTTP1_GET, false, 200, HTTP1_UNTIL_CLOSE, false},
    {"close", B(OK "Connection: close\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 200, HTTP1_LENGTH, false},
    {"1.0", B("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 200, HTTP1_LENGTH, false},
    {"1.0 keep", B("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 200,
     HTTP1_LENGTH, true},
    {"no reason", B("HTTP/1.1 200\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 200, HTTP1_LENGTH, true},
    {"R15 HEAD", B(OK "Content-Length: 5\r\n" END), HTTP1_HEAD, false, 200, HTTP1_NO_BODY, true},
    {"R15 HEAD, chunked", B(OK "Transfer-Encoding: chunked\r\n" END), HTTP1_HEAD, false, 200, HTTP1_NO_BODY, true},
    {"R15 HEAD, nothing", B(OK END), HTTP1_HEAD, false, 200, HTTP1_NO_BODY, true},
    {"R15 204", B("HTTP/1.1 204 N\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 204, HTTP1_NO_BODY, true},
    {"R15 304", B("HTTP/1.1 304 N\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 304, HTTP1_NO_BODY, true},
    {"R15 CL and TE", B(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"R15 CL and TE to HEAD", B(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), HTTP1_HEAD, false, 0, 0,
     false},
    {"two CL", B(OK "Content-Length: 5\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"CL list", B(OK "Content-Length: 5, 5\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"CL minus", B(OK "Content-Length: -1\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"TE gzip", B(OK "Transfer-Encoding: gzip\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"TE gzip, chunked", B(OK "Transfer-Encoding: gzip, chunked\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"TE twice", B(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), HTTP1_GET, false, 0, 0,
     false},
    {"TE in 1.0", B("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"fold", B(OK "X: a\r\n b\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"bare CR", B(OK "X: a\rb\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"bare LF", B(OK "X: a\nY: b\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"NUL", B(OK "X: \0\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"space before colon", B(OK "X : a\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"no token", B(OK "X Y: a\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"control byte in the reason", B("HTTP/1.1 200 O\x01K\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"status 099", B("HTTP/1.1 099 X\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"status 600", B("HTTP/1.1 600 X\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"status 20", B("HTTP/1.1 20 X\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"status 2000", B("HTTP/1.1 2000 X\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"HTTP/2", B("HTTP/2.0 200 X\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"ICY", B("ICY 200 OK\r\n" END), HTTP1_GET, false, 0, 0, false},
    {"empty line first", B("\r\n" OK END), HTTP1_GET, false, 0, 0, false},
    {"a request", B(GET END), HTTP1_GET, false, 0, 0, false},
    {"R14 100", B("HTTP/1.1 100 C\r\n" END), HTTP1_GET, false, 100, HTTP1_NO_BODY, true},
    {"R14 103 with a length", B("HTTP/1.1 103 E\r\nContent-Length: 5\r\n" END), HTTP1_GET, false, 103, HTTP1_NO_BODY,
     true},
#define SWITCH "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n"
#define ACCEPT "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    {"R14 101", B(SWITCH ACCEPT END), HTTP1_GET, true, 101, HTTP1_NO_BODY, true},
    {"R14 101 unasked", B(SWITCH ACCEPT END), HTTP1_GET, false, 0, 0, false},
    {"R14 101 without accept", B(SWITCH END), HTTP1_GET, true, 0, 0, false},
    {"R14 101 to another protocol", B("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" ACCEPT END),
     HTTP1_GET, true, 0, 0, false},
    {"R14 101 with a length", B(SWITCH ACCEPT "Content-Length: 5\r\n" END), HTTP1_GET, true, 0, 0, false},
    {"R14 101 chunked", B(SWITCH ACCEPT "Transfer-Encoding: chunked\r\n" END), HTTP1_GET, true, 0, 0, false},
    {"refused upgrade", B("HTTP/1.1 403 F\r\nContent-Length: 5\r\n" END), HTTP1_GET, true, 403, HTTP1_LENGTH, true},
};

static int parse_response(struct str head, enum http1_method method, bool websocket, struct http1_response *r)
{
	ssize_t end = http1_head_end(head.p, head.n, 0);

	return end < 0 ? -EBADMSG
		       : http1_parse_response(head.p, end ? (size_t)end : head.n, method, websocket, &limits, r);
}

static void response_table(void **state)
{
	static struct http1_response r;
	int failed = 0;

	for (size_t i = 0; i < sizeof responses / sizeof *responses; i++) {
		int e = parse_response(responses[i].head, responses[i].method, responses[i].websocket, &r);
		int status = e < 0 ? 0 : r.status;
		if (status == responses[i].status &&
		    (!status || (r.body == responses[i].body && r.keep_alive == responses[i].keep)))
			continue;
		print_error("%s: status %d body %d keep %d (%s)\n", responses[i].rule, status, r.body, r.keep_alive,
			    r.why ? r.why : "");
		failed++;
	}
	assert_int_equal(failed, 0);
}

static const struct {
	const char *in, *out;
	struct http1_reply how;
} replies[] = {
    {OK "Content-Length: 5\r\nDate: d\r\nX-Request-Id: own\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
     OK "Date: d\r\nX-Request-Id: own\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\n",
     {1, true, HTTP1_LENGTH, "", STR("id"), "now", {0}}},
    {OK "Content-Length: 1\r\nSet-Cookie: a\r\n\r\n",
     OK "Set-Cookie: a\r\nDate: now\r\nX-Request-Id: id\r\nB: c\r\nSet-Cookie: ours\r\nContent-Length: 1\r\n\r\n",
     {1, true, HTTP1_LENGTH, "B: c\r\n", STR("id"), "now", STR("Set-Cookie: ours\r\n")}},
    {OK "Transfer-Encoding: chunked\r\nTrailer: x\r\nKeep-Alive: 5\r\nConnection: x-hop\r\nX-Hop: y\r\nUpgrade: "
	"h2\r\n\r\n",
     OK "Date: now\r\nX-Request-Id: id\r\nTransfer-Encoding: chunked\r\n\r\n",
     {1, true, HTTP1_CHUNKED, "", STR("id"), "now", {0}}},
    {OK "\r\n",
     OK "Date: now\r\nX-Request-Id: id\r\nConnection: close\r\n\r\n",
     {0, false, HTTP1_UNTIL_CLOSE, "", STR("id"), "now", {0}}},
    {OK "Content-Length: 1\r\n\r\n",
     OK "Date: now\r\nX-Request-Id: id\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
     {0, true, HTTP1_LENGTH, "", STR("id"), "now", {0}}},
    {OK "Content-Length: 1\r\nCROSS-origin-opener-policy: x\r\nA: b\r\n\r\n",
     OK "A: b\r\nDate: now\r\nX-Request-Id: id\r\nB: c\r\nCross-Origin-Opener-Policy: y\r\nContent-Length: 1\r\n\r\n",
     {1, true, HTTP1_LENGTH, "B: c\r\nCross-Origin-Opener-Policy: y\r\n", STR("id"), "now", {0}}},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
     "HTTP/1.1 304 Not Modified\r\nETag: x\r\nDate: now\r\nX-Request-Id: id\r\nContent-Length: 7\r\n\r\n",
     {1, true, HTTP1_NO_BODY, "", STR("id"), "now", {0}}},
    {"HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n",
     "HTTP/1.1 204 No\r\nDate: now\r\nX-Request-Id: id\r\n\r\n",
     {1, true, HTTP1_NO_BODY, "", STR("id"), "now", {0}}},
};

static void reply_table(void **state)
{
	static struct http1_response r;

	for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
		cleanup_buf struct buf got = BUF_INIT;
		assert_int_equal(parse_response(STRZ(replies[i].in), HTTP1_GET, false, &r), 0);
		http1_write_response(&r, &replies[i].how, &got);
		assert_string_equal(got.data, replies[i].out);
	}
}

static const struct {
	const char *in;
	const char *body; /* NULL: refused */
	const char *rest;
} chunks[] = {
    {"0\r\n\r\n", "", ""},
    {"5\r\nhello\r\n0\r\n\r\nGET", "hello", "GET"},
    {"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", ""},
    {"A\r\n0123456789\r\n000\r\n\r\n", "0123456789", ""},
    {"5;a\r\nhello\r\n0;b=\"c\"\r\n\r\n", "hello", ""},
    {"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\nrest", "hello", "rest"},
    {"5\nhello\n0\n\n", NULL, NULL},
    {"5\r\nhelloX0\r\n\r\n", NULL, NULL},
    {"5\r\nhello\r0\r\n\r\n", NULL, NULL},
    {"5\r\nhello\n0\r\n\r\n", NULL, NULL},
    {"0x5\r\nhello\r\n", NULL, NULL},
    {"+5\r\nhello\r\n", NULL, NULL},
    {"-1\r\n", NULL, NULL},
    {" 5\r\nhello\r\n", NULL, NULL},
    {"5 \r\nhello\r\n", NULL, NULL},
    {"5\t\r\nhello\r\n", NULL, NULL},
    {"g\r\n", NULL, NULL},
    {"\r\n", NULL, NULL},
    {";a\r\n", NULL, NULL},
    {"10000000000000000\r\n", NULL, NULL},
    {"5;a\rb\r\nhello\r\n", NULL, NULL},
    {"5;a\nb\r\nhello\r\n", NULL, NULL},
    {"0\r\n X: a\r\n\r\n", NULL, NULL},
    {"0\r\nX: a\nY: b\r\n\r\n", NULL, NULL},
    {"0\r\n\n", NULL, NULL},
    {"0\r\n: v\r\n\r\n", NULL, NULL},
    {"0\r\nX: v\r\n:\r\n\r\n", NULL, NULL},
    {"0\r\nX:\r\nY: v\r\n\r\n", "", ""},
    {"5\r\nhello\r\n0\r\nX: a\r\n\n", NULL, NULL},
    {"0\r\nX\r\n\r\n", NULL, NULL},
};

/* Decodes in pieces of `step` bytes. The number of bytes used, or -1. */
static ssize_t decode(const char *in, size_t step, struct buf *body)
{
	struct http1_chunked c;
	size_t n = strlen(in), at = 0;

	http1_chunked_init(&c);
	while (at < n && !c.done) {
		struct str spans[HTTP1_SPANS];
		size_t nspans, k = n - at < step ? n - at : step;
		char *piece = xmalloc(k); /* of its own, so that a sanitizer sees each byte too many */
		memcpy(piece, in + at, k);
		ssize_t used = http1_chunked_decode(&c, piece, k, spans, &nspans);
		for (size_t i = 0; used >= 0 && i < nspans; i++)
			buf_add(body, spans[i].p, spans[i].n);
		free(piece);
		if (used < 0)
			return -1;
		at += (size_t)used;
	}
	return c.done ? (ssize_t)at : -2;
}

static void chunk_table(void **state)
{
	for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
		for (size_t step = 1; step < 40; step++) {
			cleanup_buf struct buf body = BUF_INIT;
			ssize_t used = decode(chunks[i].in, step, &body);
			if ((used >= 0) != (chunks[i].body != NULL))
				fail_msg("%s in steps of %zu: %zd", chunks[i].in, step, used);
			if (used < 0)
				continue;
			assert_string_equal(body.data ? body.data : "", chunks[i].body);
			assert_string_equal(chunks[i].in + used, chunks[i].rest);
		}
	}
}

/* More chunks in one piece than there are spans: the rest moves together. */
static void chunk_many(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_buf struct buf want = BUF_INIT;
	cleanup_buf struct buf got = BUF_INIT;

	for (int i = 0; i < 1000; i++) {
		buf_addf(&in, "%x\r\n%.*s\r\n", i % 7 + 1, i % 7 + 1, "abcdefg");
		buf_addf(&want, "%.*s", i % 7 + 1, "abcdefg");
	}
	buf_adds(&in, "0\r\n\r\n");
	assert_int_equal(decode(in.data, in.len, &got), in.len);
	assert_string_equal(got.data, want.data);
}

static void chunk_limits(void **state)
{
	cleanup_buf struct buf in = BUF_INIT;
	cleanup_buf struct buf out = BUF_INIT;

	buf_adds(&in, "5;");
	for (int i = 0; i < 300; i++)
		buf_addc(&in, 'a');
	buf_adds(&in, "\r\nhello\r\n0\r\n\r\n");
	assert_int_equal(decode(in.data, in.len, &out), -1);
	buf_clear(&in);
	for (int i = 0; i < 10000; i++)
		buf_addc(&in, '0');
	buf_adds(&in, "5\r\nhello\r\n0\r\n\r\n");
	assert_int_equal(decode(in.data, in.len, &out), -1);
	assert_int_equal(decode(in.data, 100, &out), -1);
	buf_clear(&in);
	buf_adds(&in, "0\r\n");
	for (int i = 0; i < 2000; i++)
		buf_adds(&in, "A: b\r\n");
	buf_adds(&in, "\r\n");
	assert_int_equal(decode(in.data, in.len, &out), -1);
	assert_int_equal(decode(in.data, 7, &out), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(request_table),
	    cmocka_unit_test(head_end),
	    cmocka_unit_test(limits_table),
	    cmocka_unit_test(forward_table),
	    cmocka_unit_test(forward_ipv6_site_port),
	    cmocka_unit_test(keep_alive),
	    cmocka_unit_test(response_table),
	    cmocka_unit_test(reply_table),
	    cmocka_unit_test(chunk_table),
	    cmocka_unit_test(chunk_many),
	    cmocka_unit_test(chunk_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
