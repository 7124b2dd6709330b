/* What an egress list may say, what is never the Internet, the messages of its name server, and the rules made from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sandbox/dns.h"
#include "sandbox/egress_inside.h"
#include "sandbox/gate.h"

static bool parses(const char *text, struct egress_entry *e)
{
	struct err err = ERR_INIT;
	bool ok = egress_entry_parse(STRZ(text), e, &err) == 0;

	assert_true(ok || err.msg[0]);
	return ok;
}

static void test_entries(void **unused)
{
	static const struct {
		const char *text, *name;
		bool below;
		uint32_t addr;
		unsigned prefix;
		uint16_t port;
	} good[] = {
	    {"example.com", "example.com", false, 0, 0, 0},
	    {"Example.COM.:443", "example.com", false, 0, 0, 443},
	    {"*.example.com:80", "example.com", true, 0, 0, 80},
	    {"*.com", "com", true, 0, 0, 0},
	    {"_dmarc.a-b.example", "_dmarc.a-b.example", false, 0, 0, 0},
	    {"1password.com", "1password.com", false, 0, 0, 0},
	    {"203.0.113.7", "", false, 0xcb007107, 32, 0},
	    {"203.0.113.0/24:65535", "", false, 0xcb007100, 24, 65535},
	    {"0.0.0.0/0", "", false, 0, 0, 0},
	};
	static const char *const bad[] = {"",
					  "*",
					  "*.",
					  "*example.com",
					  "a.*.com",
					  "a..b",
					  ".a",
					  "-a.com",
					  "a.-b.com",
					  "a b",
					  "a.com:",
					  "a.com:0",
					  "a.com:65536",
					  "a.com:80:81",
					  "a.com/24",
					  "1.2.3",
					  "1.2.3.4.5",
					  "203.0.113.1/24",
					  "1.1.1.1/33",
					  "1.1.1.1/",
					  "[2001:db8::]",
					  "2001:db8::1",
					  "10.0.0.0/8",
					  "10.1.2.3",
					  "127.0.0.1",
					  "169.254.169.254",
					  "192.168.1.1",
					  "168.63.129.16",
					  "*.203.0.113.1",
					  "100.64.0.0/11",
					  "b\xc3\xbc.de",
					  "a\tb"};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		struct egress_entry e;
		assert_true(parses(good[i].text, &e));
		assert_string_equal(e.name, good[i].name);
		assert_int_equal(e.below, good[i].below);
		assert_int_equal(e.addr, good[i].addr);
		assert_int_equal(e.prefix, good[i].prefix);
		assert_int_equal(e.port, good[i].port);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct egress_entry e;
		if (parses(bad[i], &e))
			fail_msg("taken: %s", bad[i]);
	}
}

static void test_names(void **unused)
{
	struct egress_entry e;

	assert_true(parses("example.com", &e));
	assert_true(egress_name_matches(&e, "example.com"));
	assert_false(egress_name_matches(&e, "a.example.com"));
	assert_false(egress_name_matches(&e, "example.com.evil.test"));
	assert_true(parses("*.example.com", &e));
	assert_true(egress_name_matches(&e, "a.b.example.com"));
	assert_false(egress_name_matches(&e, "example.com"));
	assert_false(egress_name_matches(&e, ".example.com"));
	assert_false(egress_name_matches(&e, "evilexample.com"));
	assert_true(parses("203.0.113.7", &e));
	assert_false(egress_name_matches(&e, ""));
}

static void test_forbidden(void **unused)
{
	static const uint32_t in[] = {0,	  0x00ffffff, 0x0a000000, 0x0affffff, 0x64400000, 0x647fffff,
				      0x7f000001, 0xa83f8110, 0xa9fea9fe, 0xac100000, 0xac1fffff, 0xc0000000,
				      0xc0a80101, 0xc6120000, 0xc613ffff, 0xe0000001, 0xffffffff};
	static const uint32_t out[] = {0x01010101, 0x09ffffff, 0x0b000000, 0x643fffff, 0x64800000, 0x7effffff,
				       0x80000000, 0xa83f8111, 0xac0fffff, 0xac200000, 0xc0000100, 0xc0a90000,
				       0xc6140000, 0xc6336407, 0xcb007101, 0xdfffffff};

	for (size_t i = 0; i < sizeof in / sizeof *in; i++)
		assert_true(egress_forbidden(in[i]));
	for (size_t i = 0; i < sizeof out / sizeof *out; i++)
		assert_false(egress_forbidden(out[i]));
}

static void test_files(void **unused)
{
	struct err err = ERR_INIT;
	char **list = egress_list_parse(STR("# all\n\n a.test:80 # b\r\n*.c.test\n203.0.113.0/24"), &err);

	assert_non_null(list);
	assert_string_equal(list[0], "a.test:80");
	assert_string_equal(list[1], "*.c.test");
	assert_string_equal(list[2], "203.0.113.0/24");
	assert_null(list[3]);
	egress_list_free(list);
	list = egress_list_parse(STR(""), &err);
	assert_non_null(list);
	assert_null(list[0]);
	egress_list_free(list);
	assert_null(egress_list_parse(STR("a.test\n10.0.0.1\n"), &err));
	assert_non_null(strstr(err.msg, "line 2"));
	cleanup_buf struct buf many = BUF_INIT;
	for (int i = 0; i <= EGRESS_LIST_MAX; i++)
		buf_addf(&many, "h%d.test\n", i);
	assert_null(egress_list_parse((struct str){many.data, many.len}, &err));
}

/* A resolver may be taken over by what it parses: then its tuples are still only what a list could mean. */
static void test_gate(void **unused)
{
	struct egress_entry e[2] = {{.name = "a.test"}, {.addr = 0xcb007107, .prefix = 32}};
	struct egress_policy p = {.kind = EGRESS_LIST, .entries = e, .n = 2};

	assert_true(gate_may(&p, 0, 0xc6336407));
	assert_false(gate_may(&p, 0, 0x0a000001));
	assert_false(gate_may(&p, 0, 0xa9fea9fe));
	assert_false(gate_may(&p, 1, 0xc6336407));
	assert_false(gate_may(&p, 2, 0xc6336407));
}

static void test_rules(void **unused)
{
	struct egress_entry e[2] = {{.name = "a.test"}, {.addr = 0xcb007100, .prefix = 24, .port = 81}};
	struct egress_policy p = {.kind = EGRESS_LIST, .entries = e, .n = 2, .bandwidth = 1 << 20};
	uint32_t host = 0xcb007101;
	cleanup_buf struct buf b = BUF_INIT;

	egress_inside_rules(&p, false, NULL, 0, &b);
	assert_non_null(strstr(b.data, "ip daddr 203.0.113.0/24 th dport 81 accept"));
	assert_null(strstr(b.data, "nfproto ipv4 accept"));
	assert_null(strstr(b.data, "bytes/second"));
	/* what is forbidden comes before all that lets pass */
	assert_true(strstr(b.data, "169.254.0.0/16") < strstr(b.data, "established"));
	assert_true(strstr(b.data, "169.254.0.0/16") < strstr(b.data, "@hosts"));
	buf_clear(&b);
	p.kind = EGRESS_INTERNET;
	egress_inside_rules(&p, true, &host, 1, &b);
	assert_non_null(strstr(b.data, "ip daddr 203.0.113.1 reject"));
	assert_non_null(strstr(b.data, "1048576 bytes/second"));
	assert_null(strstr(b.data, "@services accept"));
}

/* -- DNS ------------------------------------------------------------------------------------------------------------ */

static void test_query(void **unused)
{
	static const uint8_t in[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
				    "\x02oK\x04Test\x00\x00\x01\x00\x01"
				    "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";
	uint8_t out[DNS_MESSAGE], bad[sizeof in];
	struct dns_address a[2] = {{0xc6336407, 60}, {0xc6336408, 70000}};
	struct dns_query q;

	assert_int_equal(dns_parse_query(in, sizeof in - 1, &q), 0);
	assert_string_equal(q.name, "ok.test");
	assert_int_equal(q.type, DNS_TYPE_A);
	size_t n = dns_build_answer(&q, DNS_OK, a, 2, out);
	assert_int_equal(n, 12 + 13 + 2 * 16);
	assert_memory_equal(out, "\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00\x02oK\x04Test\x00\x00\x01\x00\x01",
			    25);
	assert_memory_equal(out + 41, "\xc0\x0c\x00\x01\x00\x01\x00\x01\x11\x70\x00\x04\xc6\x33\x64\x08", 16);
	for (size_t k = 0; k < 25; k++) /* cut off anywhere */
		assert_int_equal(dns_parse_query(in, k, &q), -1);
	memcpy(bad, in, sizeof in);
	bad[2] |= 0x80; /* an answer */
	assert_int_equal(dns_parse_query(bad, sizeof in - 1, &q), -1);
	memcpy(bad, in, sizeof in);
	bad[12] = 0xc0; /* a pointer in a question */
	assert_int_equal(dns_parse_query(bad, sizeof in - 1, &q), -1);
	memcpy(bad, in, sizeof in);
	bad[13] = '.'; /* a dot within a label is no host name that a list could mean */
	assert_int_equal(dns_parse_query(bad, sizeof in - 1, &q), 0);
	assert_string_equal(q.name, "");
}

static void test_answer(void **unused)
{
	/* www.test is a CNAME of ok.test (ttl 20), whose addresses follow; one record belongs to somebody else */
	static const uint8_t in[] = "\x00\x07\x81\x80\x00\x01\x00\x04\x00\x00\x00\x00"
				    "\x03www\x04test\x00\x00\x01\x00\x01"
				    "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x14\x00\x05\x02ok\xc0\x10"
				    "\xc0\x26\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x07"
				    "\x04"
				    "evil\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x63"
				    "\xc0\x26\x00\x01\x00\x01\x00\x00\x00\x0a\x00\x04\xc6\x33\x64\x08";
	uint8_t loop[sizeof in], query[DNS_MESSAGE];
	struct dns_answer a;
	struct dns_query q;

	assert_int_equal(dns_parse_answer(in, sizeof in - 1, "www.test", &a), 0);
	assert_int_equal(a.id, 7);
	assert_int_equal(a.n, 2);
	assert_int_equal(a.a[0].addr, 0xc6336407);
	assert_int_equal(a.a[0].ttl, 20);
	assert_int_equal(a.a[1].addr, 0xc6336408);
	assert_int_equal(a.a[1].ttl, 10);
	assert_int_equal(dns_parse_answer(in, sizeof in - 1, "ok.test", &a), -1);
	for (size_t k = 0; k < sizeof in - 1; k++)
		dns_parse_answer(in, k, "www.test", &a); /* for the sanitizers */
	memcpy(loop, in, sizeof in);
	loop[39] = 0xc0; /* a name that points at itself */
	loop[40] = 39;
	dns_parse_answer(loop, sizeof in - 1, "www.test", &a);
	size_t n = dns_build_query(7, "www.test", query);
	assert_int_equal(dns_parse_query(query, n, &q), 0);
	assert_string_equal(q.name, "www.test");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_entries), cmocka_unit_test(test_names),  cmocka_unit_test(test_forbidden),
	    cmocka_unit_test(test_files),   cmocka_unit_test(test_gate),   cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_query),   cmocka_unit_test(test_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
