/* Host names that people bring: how they are written, and which are refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "spaced/domain.h"

#define APEX "spaces.example.org"

static const struct {
	const char *text, *host; /* NULL: refused */
} names[] = {
    {"demo.example.com", "demo.example.com"},
    {"Demo.EXAMPLE.com.", "demo.example.com"},
    {"example.com", "example.com"},
    {"*.example.com", "*.example.com"},
    {"*.Example.Com.", "*.example.com"},
    {"b\xc3\xbc"
     "cher.example",
     "xn--bcher-kva.example"},
    {"B\xc3\x9c"
     "CHER.example",
     "xn--bcher-kva.example"},
    {"fa\xc3\x9f.example", "xn--fa-hia.example"}, /* not "fass": IDNA2008 */
    {"xn--bcher-kva.example", "xn--bcher-kva.example"},
    {"*.b\xc3\xbc"
     "cher.example",
     "*.xn--bcher-kva.example"},
    {"\xe4\xbe\x8b\xe3\x81\x88\xe3\x80\x82\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88", "xn--r8jz45g.xn--zckzah"},
    {"a.1b.example", "a.1b.example"},
    {"notspaces.example.org", "notspaces.example.org"},
    {"example.org", "example.org"},
    {"", NULL},
    {".", NULL},
    {"*", NULL},
    {"*.", NULL},
    {"localhost", NULL},
    {"*.com", NULL},
    {"a..example.com", NULL},
    {".example.com", NULL},
    {"example.com..", NULL},
    {"a_b.example.com", NULL},
    {"-a.example.com", NULL},
    {"a-.example.com", NULL},
    {"a b.example.com", NULL},
    {"a.example.com:80", NULL},
    {"a.example.com/x", NULL},
    {"http://example.com", NULL},
    {"user@example.com", NULL},
    {"**.example.com", NULL},
    {"a.*.example.com", NULL},
    {"*.*.example.com", NULL},
    {"127.0.0.1", NULL},
    {"1.2.3.0x4", NULL},
    {"[::1]", NULL},
    {"xn--a.example", NULL}, /* no A-label */
    {"\xff.example.com", NULL},
    {"a.\x01.example.com", NULL},
    {APEX, NULL},
    {"alice-hello." APEX, NULL},
    {"ALICE-hello." APEX ".", NULL},
    {"*." APEX, NULL},
    {"*.x." APEX, NULL},
    {"*.example.org", NULL}, /* the apex is below it */
};

static void checked(void **state)
{
	char out[DOMAIN_MAX + 1], again[DOMAIN_MAX + 1];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct err err = ERR_INIT;
		int r = domain_check(names[i].text, APEX, out, &err);
		if ((r == 0) != (names[i].host != NULL))
			fail_msg("`%s`: %s", names[i].text, r == 0 ? out : err.msg);
		if (r < 0) {
			assert_int_equal(err.code, EINVAL);
			assert_true(err.msg[0]);
			continue;
		}
		assert_string_equal(out, names[i].host);
		assert_int_equal(domain_check(out, APEX, again, &err), 0);
		assert_string_equal(again, out);
	}
}

static void lengths(void **state)
{
	char name[2000], out[DOMAIN_MAX + 1];
	struct err err = ERR_INIT;

	memset(name, 'a', sizeof name);
	for (size_t i = 63; i < sizeof name; i += 64)
		name[i] = '.';
	name[253] = '\0';
	assert_int_equal(domain_check(name, APEX, out, &err), 0);
	assert_int_equal(strlen(out), 253);
	name[253] = 'a';
	name[254] = '\0';
	assert_int_equal(domain_check(name, APEX, out, &err), -1);
	name[254] = 'a';
	name[1999] = '\0';
	assert_int_equal(domain_check(name, APEX, out, &err), -1);
	name[0] = '*';
	name[1] = '.';
	name[255] = '\0';
	assert_int_equal(domain_check(name, APEX, out, &err), -1);
	name[251] = '\0';
	assert_int_equal(domain_check(name, APEX, out, &err), 0);
}

static void covered(void **state)
{
	assert_true(domain_covers("a.b", "a.b"));
	assert_false(domain_covers("a.b", "x.a.b"));
	assert_true(domain_covers("*.a.b", "x.a.b"));
	assert_true(domain_covers("*.a.b", "x.y.a.b"));
	assert_true(domain_covers("*.a.b", "*.x.a.b"));
	assert_true(domain_covers("*.a.b", "*.a.b"));
	assert_false(domain_covers("*.a.b", "a.b"));
	assert_false(domain_covers("*.a.b", "xa.b"));
	assert_false(domain_covers("*.x.a.b", "*.a.b"));
	assert_false(domain_covers("x.a.b", "*.a.b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(checked),
	    cmocka_unit_test(lengths),
	    cmocka_unit_test(covered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
