/* The cookie that keeps a visitor to an instance: its value, and how it is found among others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/sticky.h"

static const char key[] = "0123456789abcdef0123456789abcdef";

static struct target *targets(struct route_table *t)
{
	struct route r = {.kind = ROUTE_TCP, .host = "a", .nendpoints = 2};

	snprintf(r.endpoints[0].name, sizeof r.endpoints[0].name, "127.0.0.1:81");
	snprintf(r.endpoints[1].name, sizeof r.endpoints[1].name, "127.0.0.1:82");
	memcpy(r.sticky, key, sizeof key);
	route_table_set(t, &r);
	return target_ref(route_lookup(t, STR("a")));
}

static void values(void **state)
{
	char a[STICKY_VALUE], b[STICKY_VALUE];

	sticky_value(key, "127.0.0.1:81", 0, a);
	assert_int_equal(strlen(a), STICKY_VALUE - 1);
	sticky_value(key, "127.0.0.1:81", 0, b);
	assert_string_equal(a, b);
	sticky_value(key, "127.0.0.1:81", 1, b);
	assert_string_not_equal(a, b);
	sticky_value(key, "127.0.0.1:82", 0, b);
	assert_string_not_equal(a, b);
	sticky_value("fedcba9876543210fedcba9876543210", "127.0.0.1:81", 0, b);
	assert_string_not_equal(a, b);
}

#define OTHER "ffffffffffffffffffffffffffffffff"

/* %s: the value of the second endpoint. */
static const struct {
	const char *cookies;
	bool secure;
	int endpoint;	/* -1: none */
	bool remembers; /* something that could be one */
} finds[] = {
    {"spaced-instance=%s", false, 1, true},
    {"a=b; spaced-instance=%s; c", false, 1, true},
    {"spaced-instance=" OTHER "; spaced-instance=%s", false, 1, true},
    {"spaced-instance=" OTHER, false, -1, true},
    {"__Host-spaced-instance=%s", false, -1, false},
    {"__Host-spaced-instance=%s", true, 1, true},
    {"spaced-instance=%s", true, -1, false},
    {"spaced-instance=%s0", false, -1, false},
    {"spaced-instance=", false, -1, false},
    {"spaced-instance=FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", false, -1, false},
    {"spaced-instances=%s", false, -1, false},
    {"x=spaced-instance=%s", false, -1, false},
    {";;=;", false, -1, false},
};

static void found(void **state)
{
	struct route_table *table = route_table_new();
	struct target *t = targets(table);

	for (size_t i = 0; i < sizeof finds / sizeof *finds; i++) {
		static struct http1_request r;
		cleanup_buf struct buf cookies = BUF_INIT;
		char out[STICKY_VALUE];
		const char *mark = strstr(finds[i].cookies, "%s");
		if (mark)
			buf_addf(&cookies, "%.*s%s%s", (int)(mark - finds[i].cookies), finds[i].cookies,
				 t->endpoints[1].cookie, mark + 2);
		else
			buf_adds(&cookies, finds[i].cookies);
		r.fields[0] = (struct http1_field){STR("Accept"), STR("x")};
		r.fields[1] = (struct http1_field){STR("COOKIE"), {cookies.data, cookies.len}};
		r.nfields = 2;
		sticky_find(&r, t, finds[i].secure, out);
		if (sticky_endpoint(t, out) != finds[i].endpoint || (out[0] != '\0') != finds[i].remembers)
			fail_msg("%s: endpoint %d, value `%s`", finds[i].cookies, sticky_endpoint(t, out), out);
	}
	target_unref(t);
	route_table_free(table);
}

static void lines(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	sticky_set_cookie("v", false, &b);
	assert_string_equal(b.data, "Set-Cookie: spaced-instance=v; Path=/; HttpOnly; SameSite=Lax\r\n");
	buf_clear(&b);
	sticky_set_cookie("v", true, &b);
	assert_string_equal(b.data, "Set-Cookie: __Host-spaced-instance=v; Path=/; HttpOnly; SameSite=Lax; Secure\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(values),
	    cmocka_unit_test(found),
	    cmocka_unit_test(lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
