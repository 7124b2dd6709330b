/* Routes: folding of host names, the table with its wildcards, the coding on the wire. */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/route.h"

static const struct {
	const char *in;
	const char *out; /* NULL: refused */
} hosts[] = {
    {"a.test", "a.test"},
    {"A.TeSt", "a.test"},
    {"a.test.", "a.test"},
    {"a.test:80", "a.test"},
    {"a.test.:80", "a.test"},
    {"a.test:", "a.test"},
    {"localhost", "localhost"},
    {"x_y.test", "x_y.test"},
    {"127.0.0.1:7000", "127.0.0.1"},
    {"[::1]", "[::1]"},
    {"[::1]:80", "[::1]"},
    {"[0:0:0:0:0:0:0:1]", "[::1]"},
    {"[2001:DB8::A]", "[2001:db8::a]"},
    {"", NULL},
    {".", NULL},
    {".a", NULL},
    {"a..b", NULL},
    {"a.test..", NULL},
    {"a.test:99999", NULL},
    {"a.test:8o", NULL},
    {"a.test:80:80", NULL},
    {"a.test:000080", NULL},
    {":80", NULL},
    {"user@a.test", NULL},
    {"a.test/", NULL},
    {"a test", NULL},
    {"a\ttest", NULL},
    {"a,b", NULL},
    {"a%2etest", NULL},
    {"*.test", NULL},
    {"\xc3\xa4.test", NULL},
    {"[::1", NULL},
    {"[]", NULL},
    {"[::1]x", NULL},
    {"[::g]", NULL},
    {"[127.0.0.1]", NULL},
    {"::1", NULL},
};

static void canonical(void **state)
{
	char out[ROUTE_HOST_MAX + 1];

	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		bool ok = route_canonical_host(STRZ(hosts[i].in), out);
		if (ok != (hosts[i].out != NULL))
			fail_msg("%s: %s", hosts[i].in, ok ? "accepted" : "refused");
		if (ok)
			assert_string_equal(out, hosts[i].out);
		if (ok) { /* folding is idempotent */
			char again[ROUTE_HOST_MAX + 1];
			assert_true(route_canonical_host(STRZ(out), again));
			assert_string_equal(out, again);
		}
	}
	assert_false(route_canonical_host((struct str){"a\0b", 3}, out));
}

static void canonical_lengths(void **state)
{
	char out[ROUTE_HOST_MAX + 1];
	char name[400];

	memset(name, 'a', sizeof name);
	for (size_t i = 63; i < sizeof name; i += 64)
		name[i] = '.';
	assert_true(route_canonical_host((struct str){name, 253}, out));
	assert_int_equal(strlen(out), 253);
	assert_false(route_canonical_host((struct str){name, 254}, out));
	name[253] = '.';
	assert_true(route_canonical_host((struct str){name, 254}, out));
	assert_int_equal(strlen(out), 253);
	assert_false(route_canonical_host((struct str){name, 255}, out));
	assert_false(route_canonical_host((struct str){name, 399}, out));
	memset(name, 'a', 64);
	assert_false(route_canonical_host((struct str){name, 64}, out));
}

static struct route sample(const char *host, const char *instance)
{
	struct route r = {.kind = ROUTE_APP, .nendpoints = 1, .endpoints[0].generation = 7, .port = 7860};

	snprintf(r.host, sizeof r.host, "%s", host);
	snprintf(r.endpoints[0].name, sizeof r.endpoints[0].name, "%s", instance);
	snprintf(r.space, sizeof r.space, "alice/x");
	return r;
}

static const char *find(struct route_table *t, const char *host)
{
	const struct target *found = route_lookup(t, STRZ(host));
	return found ? found->endpoints[0].name : "none";
}

static void table(void **state)
{
	struct route_table *t = route_table_new();
	struct target *held_any;
	struct route r;

	assert_null(route_lookup(t, STR("a.test")));
	r = sample("a.test", "one");
	route_table_set(t, &r);
	r = sample("*.test", "any");
	route_table_set(t, &r);
	r = sample("*.deep.test", "deep");
	route_table_set(t, &r);
	assert_string_equal(find(t, "A.test.:80"), "one");
	assert_string_equal(find(t, "b.test"), "any");
	assert_string_equal(find(t, "x.y.test"), "any");
	assert_string_equal(find(t, "x.deep.test"), "deep");
	assert_string_equal(find(t, "y.x.deep.test"), "deep");
	assert_string_equal(find(t, "deep.test"), "any");
	assert_string_equal(find(t, "test"), "none");
	assert_string_equal(find(t, "xtest"), "none");

	/* By its place in the table, also a wildcard's. */
	const struct target *any = route_lookup(t, STR("b.test"));
	assert_ptr_equal(route_at(t, any->host), any);
	r = sample("*.test", "any now");
	held_any = target_ref(any);
	route_table_set(t, &r);
	assert_string_equal(route_at(t, held_any->host)->endpoints[0].name, "any now");
	target_unref(held_any);
	r = sample("*.test", "any");
	route_table_set(t, &r);

	/* One in use outlives its replacement. */
	struct target *held = target_ref(route_lookup(t, STR("a.test")));
	r = sample("a.test", "two");
	route_table_set(t, &r);
	assert_string_equal(find(t, "a.test"), "two");
	assert_string_equal(held->endpoints[0].name, "one");
	assert_string_equal(held->page_text, "");
	target_unref(held);

	route_table_remove(t, "a.test");
	route_table_remove(t, "a.test");
	assert_string_equal(find(t, "a.test"), "any");
	route_table_remove(t, "*.test");
	assert_string_equal(find(t, "a.test"), "none");
	assert_int_equal(route_table_size(t), 1);
	route_table_free(t);
}

/* The allocator of sanitizers does not tell, and takes more. */
#ifdef __SANITIZE_ADDRESS__
#define MEASURES false
#else
#define MEASURES true
#endif

static size_t allocated(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

static void many(void **state)
{
	struct route_table *t = route_table_new();
	char host[64];

	size_t before = allocated();
	for (int i = 0; i < 10000; i++) {
		snprintf(host, sizeof host, "space-%d.spaces.test", i);
		struct route r = sample(host, host);
		r.headers = (char[]){"content-security-policy: frame-ancestors 'self' https://spaces.test\r\n"};
		snprintf(r.space_id, sizeof r.space_id, "%024d", i);
		route_table_set(t, &r);
	}
	size_t bytes = allocated() - before;
	print_message("# 10000 routes take %zu KiB\n", bytes >> 10);
	if (MEASURES)
		assert_in_range(bytes, 1 << 20, 4 << 20);
	for (int i = 0; i < 10000; i++) {
		snprintf(host, sizeof host, "space-%d.spaces.test", i);
		assert_string_equal(find(t, host), host);
	}
	route_table_free(t);
}

static void wire(void **state)
{
	struct route in = sample("a.test", "app-1-7");
	struct route out;
	cleanup_buf struct buf b = BUF_INIT;

	in.page_status = 503;
	in.page_refresh = true;
	in.rate = 1000000;
	in.page_title = xstrdup("Building");
	in.page_text = xstrdup("line\n\nlog <b>");
	in.headers = xstrdup("Cross-Origin-Opener-Policy: same-origin\r\n");
	route_encode(&in, &b);
	struct reader rd = reader_of(b.data, b.len);
	assert_int_equal(route_decode(&rd, &out), 0);
	assert_true(get_ok(&rd));
	assert_string_equal(out.host, in.host);
	assert_string_equal(out.endpoints[0].name, in.endpoints[0].name);
	assert_int_equal(out.endpoints[0].generation, 7);
	assert_int_equal(out.port, 7860);
	assert_true(out.page_refresh);
	assert_int_equal(out.rate, 1000000);
	assert_string_equal(out.page_text, in.page_text);
	assert_string_equal(out.headers, in.headers);
	route_release(&out);
	for (size_t cut = 0; cut < b.len; cut++) {
		rd = reader_of(b.data, cut);
		assert_int_equal(route_decode(&rd, &out), -EBADMSG);
	}
	route_release(&in);
}

/* The most that there can be of all, and what the table makes of it. */
static void endpoints(void **state)
{
	struct route in = sample("a.test", "app-0"), out;
	struct route_table *t = route_table_new();
	cleanup_buf struct buf b = BUF_INIT;

	in.nendpoints = ROUTE_ENDPOINTS_MAX;
	for (unsigned i = 0; i < ROUTE_ENDPOINTS_MAX; i++) {
		snprintf(in.endpoints[i].name, sizeof in.endpoints[i].name, "app-%u", i);
		in.endpoints[i].generation = 100 + i;
	}
	snprintf(in.sticky, sizeof in.sticky, "0123456789abcdef0123456789abcdef");
	route_encode(&in, &b);
	struct reader rd = reader_of(b.data, b.len);
	assert_int_equal(route_decode(&rd, &out), 0);
	route_table_set(t, &out);
	const struct target *found = route_lookup(t, STR("a.test"));
	assert_true(found->sticky);
	assert_int_equal(found->nendpoints, ROUTE_ENDPOINTS_MAX);
	for (unsigned i = 0; i < ROUTE_ENDPOINTS_MAX; i++) {
		assert_string_equal(found->endpoints[i].name, in.endpoints[i].name);
		assert_int_equal(found->endpoints[i].generation, 100 + i);
		assert_int_equal(strlen(found->endpoints[i].cookie), 32);
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(found->endpoints[i].cookie, found->endpoints[k].cookie);
	}
	out.sticky[0] = '\0';
	route_table_set(t, &out);
	assert_string_equal(route_lookup(t, STR("a.test"))->endpoints[3].cookie, "");
	route_table_free(t);
	route_release(&out);
}

static int decode_with(struct route *r)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct route out;

	route_encode(r, &b);
	struct reader rd = reader_of(b.data, b.len);
	int status = route_decode(&rd, &out);
	if (status == 0)
		route_release(&out);
	return status;
}

static void wire_refuses(void **state)
{
	static const char *const bad_hosts[] = {"",   "A.test", "a.test.", "a.test:80", "*",
						"*.", "**.a",	"a b",	   "*.*.a"};
	static const char *const bad_headers[] = {"X",		"X: a",	    "X: a\n", ": a\r\n", "X: a\r\n\r\n",
						  "X y: a\r\n", "X: \1\r\n"};
	struct route r;

	for (size_t i = 0; i < sizeof bad_hosts / sizeof *bad_hosts; i++) {
		r = sample(bad_hosts[i], "one");
		if (decode_with(&r) == 0)
			fail_msg("host accepted: %s", bad_hosts[i]);
	}
	for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
		r = sample("a.test", "one");
		r.headers = (char *)(uintptr_t)bad_headers[i];
		if (decode_with(&r) == 0)
			fail_msg("headers accepted: %s", bad_headers[i]);
	}
	r = sample("a.test", "");
	assert_int_equal(decode_with(&r), -EBADMSG);
	r = sample("a.test", "one");
	r.port = 0;
	assert_int_equal(decode_with(&r), -EBADMSG);
	r = sample("a.test", "one");
	r.rate = 1000001;
	assert_int_equal(decode_with(&r), -EBADMSG);
	r = sample("a.test", "one");
	r.kind = 9;
	assert_int_equal(decode_with(&r), -EBADMSG);
	/* As many endpoints as the kind needs: one at least, or none. */
	r.kind = ROUTE_PAGE;
	r.page_status = 404;
	assert_int_equal(decode_with(&r), -EBADMSG);
	r.nendpoints = 0;
	assert_int_equal(decode_with(&r), 0);
	r.page_status = 0;
	assert_int_equal(decode_with(&r), -EBADMSG);
	r.kind = ROUTE_UNIX;
	assert_int_equal(decode_with(&r), -EBADMSG);
	r = sample("a.test", "one");
	r.nendpoints = 2; /* the second without a name */
	assert_int_equal(decode_with(&r), -EBADMSG);
	memset(r.endpoints[1].name, 'x', 81); /* longer than a sandbox's may be */
	assert_int_equal(decode_with(&r), -EBADMSG);
	r.kind = ROUTE_TCP;
	assert_int_equal(decode_with(&r), 0);
	snprintf(r.sticky, sizeof r.sticky, "too short");
	assert_int_equal(decode_with(&r), -EBADMSG);
	cleanup_buf struct buf b = BUF_INIT;
	r = sample("a.test", "one");
	route_encode(&r, &b);
	size_t at = 4 + strlen("a.test") + 1;
	assert_int_equal((unsigned char)b.data[at], 1);
	b.data[at] = ROUTE_ENDPOINTS_MAX + 1;
	struct reader rd = reader_of(b.data, b.len);
	assert_int_equal(route_decode(&rd, &r), -EBADMSG);
	r = sample("*.a.test", "one");
	assert_int_equal(decode_with(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(canonical), cmocka_unit_test(canonical_lengths),
	    cmocka_unit_test(table),	 cmocka_unit_test(many),
	    cmocka_unit_test(wire),	 cmocka_unit_test(wire_refuses),
	    cmocka_unit_test(endpoints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
