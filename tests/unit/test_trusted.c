/* Who is believed about a visitor, and what of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/trusted.h"

static struct in6_addr address(const char *text)
{
	struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	bool v6 = strchr(text, ':') != NULL;

	assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? &a.s6_addr[0] : &a.s6_addr[12]), 1);
	return a;
}

static bool has(const char *list, const char *text)
{
	struct trusted t = {.n = 0};
	struct in6_addr a = address(text);

	assert_int_equal(trusted_add(&t, STRZ(list)), 0);
	return trusted_has(&t, &a);
}

static void networks(void **state)
{
	assert_false(has("", "127.0.0.1"));
	assert_true(has("127.0.0.1", "127.0.0.1"));
	assert_true(has("127.0.0.1", "::ffff:127.0.0.1"));
	assert_true(has("::ffff:10.0.0.0/104", "10.1.2.3"));
	assert_false(has("127.0.0.1", "127.0.0.2"));
	assert_true(has("10.0.0.0/8, 192.0.2.128/25\t::1", "192.0.2.255"));
	assert_false(has("10.0.0.0/8, 192.0.2.128/25\t::1", "192.0.2.127"));
	assert_true(has("10.0.0.0/8, 192.0.2.128/25\t::1", "::1"));
	assert_false(has("10.0.0.0/8, 192.0.2.128/25\t::1", "11.0.0.1"));
	assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(has("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(has("0.0.0.0/0", "198.51.100.1"));
	assert_false(has("0.0.0.0/0", "2001:db8::1"));
	assert_true(has("::/0", "2001:db8::1"));
}

static void no_networks(void **state)
{
	static const char *const wrong[] = {"10.0.0.0/33", "10.0.0.1/8",     "10.0.0/8",     "10.0.0.0/",
					    "/8",	   "10.0.0.0/8/8",   "::1/129",	     "2001:db8::1/64",
					    "localhost",   "10.0.0.0/-1",    "10.0.0.0/08x", "1.2.3.4:80",
					    "[::1]",	   "fe80::1%lo/128", "10.0.0.0;::1"};
	struct trusted t = {.n = 0};

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct trusted some = {.n = 0};
		assert_int_equal(trusted_add(&some, STRZ(wrong[i])), -EINVAL);
	}
	for (int i = 0; i < TRUSTED_MAX; i++)
		assert_int_equal(trusted_add(&t, STR("192.0.2.1")), 0);
	assert_int_equal(trusted_add(&t, STR(" ")), 0);
	assert_int_equal(trusted_add(&t, STR("192.0.2.1")), -E2BIG);
}

/* `fors`, `protos`: the values of the fields, with a line each. */
static size_t split(const char *text, struct str out[8])
{
	size_t n = 0;

	while (*text) {
		size_t len = strcspn(text, "\n");
		out[n++] = (struct str){text, len};
		text += len + (text[len] != 0);
	}
	return n;
}

static void visitor(const char *fors, const char *protos, const char *who, const char *proto)
{
	struct trusted t = {.n = 0};
	struct str f[8], p[8];
	struct in6_addr from = address("10.0.0.1"), wanted = address(who);

	trusted_add(&t, STR("10.0.0.0/8 2001:db8:ffff::/48"));
	struct visitor v = trusted_visitor(&t, &from, f, split(fors, f), p, split(protos, p));
	if (memcmp(&v.address, &wanted, sizeof wanted) != 0)
		fail_msg("`%s`: not %s", fors, who);
	if (proto)
		assert_string_equal(v.proto, proto);
	else
		assert_null(v.proto);
}

static void the_rightmost_that_is_not_ours(void **state)
{
	visitor("", "", "10.0.0.1", NULL);
	visitor("192.0.2.1", "https", "192.0.2.1", "https");
	visitor("2001:db8::1", "HTTP", "2001:db8::1", "http");
	visitor("203.0.113.9, 192.0.2.1", "https", "192.0.2.1", "https"); /* what stands before it is invented */
	visitor("203.0.113.9\n192.0.2.1", "", "192.0.2.1", NULL);	  /* or in another field */
	visitor("192.0.2.1, 10.0.0.2, 2001:db8:ffff::9", "https", "192.0.2.1", "https");
	visitor("192.0.2.1,10.0.0.2\n10.0.0.3", "", "192.0.2.1", NULL);
	visitor("10.0.0.3, 10.0.0.2", "", "10.0.0.3", NULL); /* a machine of ours asks */
	visitor("192.0.2.1:4711", "", "192.0.2.1", NULL);
	visitor("[2001:db8::1]:443", "", "2001:db8::1", NULL);
	visitor("[2001:db8::1]", "", "2001:db8::1", NULL);
	visitor("::ffff:192.0.2.1", "", "192.0.2.1", NULL);
	visitor(" \t192.0.2.1 ", "", "192.0.2.1", NULL);
}

/* Then the one is the visitor who has said it. */
static void what_is_no_address(void **state)
{
	static const char *const wrong[] = {
	    "unknown",	      "192.0.2.1.",   "192.0.2.256", "_hidden",	      "192.0.2.1, ",   ",",
	    "[192.0.2.1]",    "[2001:db8::1", "[]:1",	     "2001:db8::1::", "\"192.0.2.1\"", "192.0.2.1 192.0.2.2",
	    "[2001:db8::1]x", ":80",	      "0x7f.1"};

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		visitor(wrong[i], "", "10.0.0.1", NULL);
	visitor("192.0.2.1, unknown, 10.0.0.2", "", "10.0.0.2", NULL);
}

static void the_protocol_of_the_same_hop(void **state)
{
	visitor("192.0.2.1, 10.0.0.2", "https, http", "192.0.2.1", "https");
	visitor("192.0.2.1, 10.0.0.2", "http\nhttps, http", "192.0.2.1", "https");
	visitor("192.0.2.1", "https, http", "192.0.2.1", "http"); /* the visitor's own word before it */
	visitor("192.0.2.1, 10.0.0.2, 10.0.0.3", "https", "192.0.2.1", "https");
	visitor("", "https", "10.0.0.1", "https");
	visitor("192.0.2.1", "wss", "192.0.2.1", NULL);
	visitor("192.0.2.1", "https,", "192.0.2.1", NULL);
	visitor("192.0.2.1", "httpsx", "192.0.2.1", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(networks),
	    cmocka_unit_test(no_networks),
	    cmocka_unit_test(the_rightmost_that_is_not_ours),
	    cmocka_unit_test(what_is_no_address),
	    cmocka_unit_test(the_protocol_of_the_same_hop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
