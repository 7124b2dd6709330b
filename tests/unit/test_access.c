/* Tickets and what requests bring to open a private Space: the codec, and what is taken out of a request. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/credentials.h"
#include "proxy/ticket.h"

#define NOW 1800000000ULL
#define SPACE "0123456789abcdef01234567"
#define USER "fedcba9876543210fedcba98"

static const struct ticket_key keys[] = {{7, "key of today"}, {6, "key of yesterday"}};

static struct ticket ticket(enum ticket_kind kind, uint64_t expires)
{
	return (struct ticket){.kind = kind, .expires = expires, .subject = SPACE, .user = USER};
}

static bool reads(const char *text, enum ticket_kind kind, uint64_t now)
{
	struct ticket out;

	return ticket_read(STRZ(text), kind, keys, 2, now, &out);
}

static void ticket_round(void **state)
{
	char text[TICKET_TEXT];
	struct ticket t = ticket(TICKET_COOKIE, NOW + 10), out;

	for (size_t i = 0; i < 2; i++) {
		ticket_make(&t, &keys[i], text);
		assert_int_equal(strlen(text), TICKET_TEXT - 1);
		assert_true(ticket_read(STRZ(text), TICKET_COOKIE, keys, 2, NOW, &out));
		assert_string_equal(out.subject, SPACE);
		assert_string_equal(out.user, USER);
		assert_int_equal(out.expires, NOW + 10);
	}
	struct ticket_key same_id = {6, "another key"};
	ticket_make(&t, &same_id, text);
	assert_false(reads(text, TICKET_COOKIE, NOW));
	/* Root has no id. */
	t.user[0] = '\0';
	ticket_make(&t, &keys[0], text);
	assert_true(ticket_read(STRZ(text), TICKET_COOKIE, keys, 2, NOW, &out));
	assert_string_equal(out.user, "000000000000000000000000");
}

static void ticket_time(void **state)
{
	char text[TICKET_TEXT];
	struct ticket t = ticket(TICKET_SIGN, NOW);

	ticket_make(&t, &keys[0], text);
	assert_true(reads(text, TICKET_SIGN, NOW - 1));
	assert_false(reads(text, TICKET_SIGN, NOW));
	assert_false(reads(text, TICKET_SIGN, NOW + 1));
	assert_true(reads(text, TICKET_SIGN, NOW - TICKET_MAX));
	assert_false(reads(text, TICKET_SIGN, NOW - TICKET_MAX - 1)); /* nothing is valid for longer */
	t.expires = UINT64_MAX;
	ticket_make(&t, &keys[0], text);
	assert_false(reads(text, TICKET_SIGN, NOW));
}

/* Each character that is changed, and each kind in place of another, makes it worthless. */
static void ticket_forged(void **state)
{
	char text[TICKET_TEXT];
	struct ticket t = ticket(TICKET_SIGN, NOW + 10);

	ticket_make(&t, &keys[0], text);
	assert_true(reads(text, TICKET_SIGN, NOW));
	assert_false(reads(text, TICKET_COOKIE, NOW));
	assert_false(reads(text, TICKET_SESSION, NOW));
	for (size_t i = 0; i < TICKET_TEXT - 1; i++) {
		char saved = text[i];
		for (int c = 1; c < 256; c++) {
			text[i] = (char)c;
			if (text[i] != saved)
				assert_false(reads(text, TICKET_SIGN, NOW));
		}
		text[i] = saved;
	}
	assert_false(reads("", TICKET_SIGN, NOW));
	text[TICKET_TEXT - 2] = '\0';
	assert_false(reads(text, TICKET_SIGN, NOW));
}

static void keys_round(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct ticket_keys in = {.secure = true, .sign_in = "https://spaces.test/sign-in", .nkeys = 2}, out;

	memcpy(in.keys, keys, sizeof keys);
	ticket_keys_encode(&in, &b);
	struct reader rd = reader_of(b.data, b.len);
	assert_int_equal(ticket_keys_decode(&rd, &out), 0);
	assert_true(out.secure && out.nkeys == 2);
	assert_string_equal(out.sign_in, in.sign_in);
	assert_memory_equal(out.keys, keys, sizeof keys);
	for (size_t n = 0; n < b.len; n++) {
		rd = reader_of(b.data, n);
		assert_int_equal(ticket_keys_decode(&rd, &out), -EBADMSG);
	}
	snprintf(in.sign_in, sizeof in.sign_in, "https://spaces.test/\r\nX: y");
	buf_clear(&b);
	ticket_keys_encode(&in, &b);
	rd = reader_of(b.data, b.len);
	assert_int_equal(ticket_keys_decode(&rd, &out), -EBADMSG);
}

/* A request head, what it must look like afterwards ("Name: value|..."), and what was found. */
static const struct {
	const char *name, *target, *fields;
	bool secure;
	const char *target_left, *fields_left, *cookies, *sign, *hf, *bearer;
	bool ambiguous;
} requests[] = {
    {.name = "nothing", .target = "/", .fields = "A: b\r\n", .target_left = "/", .fields_left = "A: b|"},
    {.name = "one cookie",
     .target = "/",
     .fields = "Cookie: spaced-access=T\r\n",
     .target_left = "/",
     .fields_left = "",
     .cookies = "T|"},
    {.name = "between others",
     .target = "/",
     .fields = "Cookie: a=1; spaced-access=T;b=2;\r\n",
     .target_left = "/",
     .fields_left = "Cookie: a=1; b=2|",
     .cookies = "T|"},
    {.name = "several fields, other cases of the name",
     .target = "/",
     .fields = "cookie: a=1; Spaced-Access=T\r\nCOOKIE: spaced-access = U ; __host-spaced-access=V\r\n",
     .target_left = "/",
     .fields_left = "cookie: a=1|",
     .cookies = "T|U|"},
    {.name = "the prefix counts on https, and there alone",
     .target = "/",
     .fields = "Cookie: spaced-access=T; __Host-spaced-access=U\r\n",
     .secure = true,
     .target_left = "/",
     .fields_left = "",
     .cookies = "U|"},
    {.name = "names that are not ours",
     .target = "/",
     .fields = "Cookie: xspaced-access=T; spaced-accessx=T; spaced-access\r\n",
     .target_left = "/",
     .fields_left = "Cookie: xspaced-access=T; spaced-accessx=T|",
     .cookies = "|"},
    {.name = "at most four",
     .target = "/",
     .fields = "Cookie: spaced-access=1; spaced-access=2; spaced-access=3; spaced-access=4; spaced-access=5\r\n",
     .target_left = "/",
     .fields_left = "",
     .cookies = "1|2|3|4|"},
    {.name = "what keeps a visitor to an instance is taken out, and opens nothing",
     .target = "/",
     .fields = "Cookie: spaced-instance=1; a=b; __Host-spaced-instance=2\r\n",
     .target_left = "/",
     .fields_left = "Cookie: a=b|",
     .cookies = ""},
    {.name = "untouched when there is none of ours",
     .target = "/?a=1&&b&",
     .fields = "Cookie: a=1;b=2 ;  c\r\n",
     .target_left = "/?a=1&&b&",
     .fields_left = "Cookie: a=1;b=2 ;  c|"},
    {.name = "sign alone", .target = "/x?__sign=T", .fields = "", .target_left = "/x", .fields_left = "", .sign = "T"},
    {.name = "sign among others",
     .target = "/x?a=1&__sign=T&b=__sign",
     .fields = "",
     .target_left = "/x?a=1&b=__sign",
     .fields_left = "",
     .sign = "T"},
    {.name = "sign in the path is a path",
     .target = "/__sign=T?x__sign=1",
     .fields = "",
     .target_left = "/__sign=T?x__sign=1",
     .fields_left = ""},
    {.name = "empty pairs stay",
     .target = "/?__signx&&__sign=T&&",
     .fields = "",
     .target_left = "/?__signx&&&",
     .fields_left = "",
     .sign = "T"},
    {.name = "a name that only begins like it",
     .target = "/?__signx=1&",
     .fields = "",
     .target_left = "/?__signx=1&",
     .fields_left = ""},
    {.name = "sign twice",
     .target = "/?__sign=T&__sign=U",
     .fields = "",
     .target_left = "/",
     .fields_left = "",
     .sign = "U",
     .ambiguous = true},
    {.name = "sign twice, once empty",
     .target = "/?__sign&__sign=U",
     .fields = "",
     .target_left = "/",
     .fields_left = "",
     .sign = "U",
     .ambiguous = true},
    {.name = "bearers",
     .target = "/",
     .fields = "Authorization: bearer  A\r\nX-HF-Authorization: Bearer B\r\n",
     .target_left = "/",
     .fields_left = "Authorization: bearer  A|",
     .hf = "B",
     .bearer = "A"},
    {.name = "not bearers",
     .target = "/",
     .fields = "Authorization: Basic A\r\nX-HF-Authorization: B\r\n",
     .target_left = "/",
     .fields_left = "Authorization: Basic A|"},
    {.name = "two of one kind",
     .target = "/",
     .fields = "Authorization: Bearer A\r\nauthorization: Basic B\r\n",
     .target_left = "/",
     .fields_left = "Authorization: Bearer A|authorization: Basic B|",
     .bearer = "A",
     .ambiguous = true},
    {.name = "two of the other",
     .target = "/",
     .fields = "x-hf-authorization: x\r\nx-hf-authorization: Bearer A\r\n",
     .target_left = "/",
     .fields_left = "",
     .hf = "A",
     .ambiguous = true},
};

static struct http1_request request;

static void parse(const char *method, const char *target, const char *fields, struct buf *head)
{
	const struct http1_limits limits = {32768, 100, 8192};

	buf_clear(head);
	buf_addf(head, "%s %s HTTP/1.1\r\nHost: a.test:80\r\n%s\r\n", method, target, fields);
	assert_int_equal(http1_parse_request(head->data, head->len, &limits, &request), 0);
}

static void same(const char *name, const char *want, struct str got)
{
	if (want ? !str_eq(got, want) : got.p != NULL)
		fail_msg("%s: `%.*s`, not `%s`", name, (int)got.n, got.p ? got.p : "", want ? want : "(none)");
}

static void taken(void **state)
{
	cleanup_buf struct buf head = BUF_INIT, scratch = BUF_INIT, left = BUF_INIT, cookies = BUF_INIT;
	struct credentials c;

	for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
		const char *name = requests[i].name;
		parse("GET", requests[i].target, requests[i].fields, &head);
		credentials_take(&request, requests[i].secure, &scratch, &c);
		buf_clear(&left);
		buf_clear(&cookies);
		buf_adds(&left, "");
		buf_adds(&cookies, "");
		for (size_t k = 0; k < request.nfields; k++)
			buf_addf(&left, "%.*s: %.*s|", (int)request.fields[k].name.n, request.fields[k].name.p,
				 (int)request.fields[k].value.n, request.fields[k].value.p);
		for (size_t k = 0; k < c.ncookies; k++)
			buf_addf(&cookies, "%.*s|", (int)c.cookies[k].n, c.cookies[k].p);
		same(name, requests[i].target_left, request.target);
		same(name, requests[i].fields_left, STRZ(left.data));
		same(name, requests[i].cookies ? requests[i].cookies : "", STRZ(cookies.data));
		same(name, requests[i].sign, c.sign);
		same(name, requests[i].hf, c.hf);
		same(name, requests[i].bearer, c.bearer);
		if (c.ambiguous != requests[i].ambiguous)
			fail_msg("%s: ambiguous %d", name, c.ambiguous);
	}
	parse("GET", "/", "a: b\r\nAuthorization: Bearer x\r\nauthorization: y\r\n", &head);
	credentials_drop_authorization(&request);
	assert_int_equal(request.nfields, 1);
}

/* Whose page a browser's request comes from. */
static const struct {
	const char *method, *fields;
	bool own_page, navigation;
} origins[] = {
    {"GET", "", true, false},
    {"GET", "Accept: text/html\r\n", true, true},
    {"POST", "Accept: text/html\r\n", true, false},
    {"GET", "Accept: text/html\r\nSec-Fetch-Mode: cors\r\n", true, false},
    {"GET", "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: cross-site\r\n", true, true},
    {"POST", "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-site\r\n", false, false},
    {"GET", "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-site\r\n", false, false},
    {"GET", "Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n", true, false},
    {"GET", "Sec-Fetch-Site: none\r\n", true, false},
    {"POST", "Origin: http://a.test:80\r\n", true, false},
    {"POST", "Origin: http://A.TEST:80\r\n", true, false},
    {"POST", "Origin: http://a.test\r\n", false, false},
    {"POST", "Origin: http://b.test:80\r\n", false, false},
    {"POST", "Origin: null\r\n", false, false},
    {"GET", "Accept: text/html\r\nOrigin: http://b.test:80\r\n", false, true},
};

static void pages(void **state)
{
	cleanup_buf struct buf head = BUF_INIT, scratch = BUF_INIT;
	struct credentials c;

	for (size_t i = 0; i < sizeof origins / sizeof *origins; i++) {
		parse(origins[i].method, "/", origins[i].fields, &head);
		credentials_take(&request, false, &scratch, &c);
		if (c.own_page != origins[i].own_page || c.navigation != origins[i].navigation)
			fail_msg("%s %s: own %d navigation %d", origins[i].method, origins[i].fields, c.own_page,
				 c.navigation);
	}
}

static void guarded(void **state)
{
	static const struct {
		const char *value;
		bool stays;
	} rows[] = {{"a=1", true},
		    {"spaced-access=1", false},
		    {"spaced-instance=1; Path=/", false},
		    {" __HOST-Spaced-Session =1; Path=/", false},
		    {"spaced-session", false},
		    {"a=spaced-access=1", true},
		    {"a=1; spaced-access=1", true},
		    {"=spaced-session=1; Path=/", false},
		    {" = __Host-spaced-access = 1", false},
		    {"=bare", true},
		    {"=", true},
		    {"__Secure-spaced-access=1", true}};
	struct http1_response r = {.nfields = 0};
	size_t stay = 0;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		r.fields[r.nfields++] = (struct http1_field){STR("Set-Cookie"), STRZ(rows[i].value)};
		stay += rows[i].stays;
	}
	credentials_guard(&r);
	assert_int_equal(r.nfields, stay);
	for (size_t i = 0, k = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].stays)
			assert_ptr_equal(r.fields[k++].value.p, rows[i].value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ticket_round), cmocka_unit_test(ticket_time), cmocka_unit_test(ticket_forged),
	    cmocka_unit_test(keys_round),   cmocka_unit_test(taken),	   cmocka_unit_test(pages),
	    cmocka_unit_test(guarded),
	};

	return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
