/* Options: one table for file, command line and --print-config. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/config.h"

static void sizes_times_and_cpus(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		int r;
	} sizes[] = {{"0", 0, 0},
		     {"512M", 512ULL << 20, 0},
		     {"1.5G", 3ULL << 29, 0},
		     {"10GiB", 10ULL << 30, 0},
		     {"7b", 7, 0},
		     {"", 0, -EINVAL},
		     {"M", 0, -EINVAL},
		     {"-1", 0, -EINVAL},
		     {"1X", 0, -EINVAL},
		     {"0x10", 0, -EINVAL},
		     {"1e30", 0, -EINVAL},
		     {" 1", 0, -EINVAL},
		     {"99999999T", 0, -EINVAL}};
	uint64_t bytes;
	uint32_t n;

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		bytes = 0;
		assert_int_equal(config_parse_size(sizes[i].text, &bytes), sizes[i].r);
		assert_true(bytes == sizes[i].bytes);
	}
	assert_int_equal(config_parse_duration("90", &n), 0);
	assert_int_equal(n, 90);
	assert_int_equal(config_parse_duration("1.5h", &n), 0);
	assert_int_equal(n, 5400);
	assert_int_equal(config_parse_duration("1 h", &n), -EINVAL);
	assert_int_equal(config_parse_duration("99999999d", &n), -EINVAL);
	assert_int_equal(config_parse_cpus("0.25", &n), 0);
	assert_int_equal(n, 250);
	assert_int_equal(config_parse_cpus("2c", &n), -EINVAL);
}

static char file[] = "/tmp/spaced-config-XXXXXX";

static int load(struct config *c, struct err *err, const char *text, const char *arg)
{
	assert_int_equal(io_write_file(-100 /* AT_FDCWD */, file, text, strlen(text), 0600), 0);
	char *argv[] = {"spaced", "--config", file, (char *)(uintptr_t)arg, NULL};
	return config_load(c, arg ? 4 : 3, argv, err);
}

static void command_line_goes_over_the_file(void **state)
{
	struct config c;
	struct err err = ERR_INIT;

	assert_int_equal(load(&c, &err,
			      "# a comment\nmemory = 1G\negress = list\negress-list = *.a.test:443, b.test "
			      "203.0.113.0/24\n\nlisten=0.0.0.0:80 # public\ndomain = Spaces.Example\n",
			      "--memory=3G"),
			 0);
	assert_true(c.memory == 3ULL << 30);
	assert_int_equal(c.port, 80);
	assert_int_equal(c.egress, EGRESS_LIST);
	assert_string_equal(c.egress_list[2], "203.0.113.0/24");
	assert_null(c.egress_list[3]);
	assert_string_equal(c.domain, "spaces.example");
	assert_string_equal(c.public_url, "http://spaces.example");
	assert_int_equal(c.cpu_milli, 2000);
	cleanup_buf struct buf printed = BUF_INIT;
	config_print(&c, &printed);
	struct config again;
	assert_int_equal(load(&again, &err, printed.data, NULL), 0);
	cleanup_buf struct buf twice = BUF_INIT;
	config_print(&again, &twice);
	assert_string_equal(printed.data, twice.data);
	config_release(&c);
	config_release(&again);
}

static void mistakes_say_where_and_what(void **state)
{
	static const struct {
		const char *text, *arg, *says;
	} rows[] = {
	    {"memory 1G\n", NULL, "line 1: expected `name = value`"},
	    {"\nmemory = lots\n", NULL, "line 2: memory = `lots`: expected a size"},
	    {"mem = 1G\n", NULL, "no option `mem`"},
	    {"", "--nope=1", "no option --nope"},
	    {"", "state", "expected an option that starts with --"},
	    {"", "--state", "needs a value"},
	    {"listen = 7000\n", NULL, "expected ADDRESS:PORT"},
	    {"listen = a:70000\n", NULL, "expected ADDRESS:PORT"},
	    {"domain = a:b\n", NULL, "host name without port"},
	    {"domain = spaces.test.\n", NULL, "domain = `spaces.test.`: expected a host name"},
	    {"domain = .test\n", NULL, "domain = `.test`: expected a host name"},
	    {"domain = a..b\n", NULL, "domain = `a..b`: expected a host name"},
	    {"domain = a_b\n", NULL, "domain = `a_b`: expected a host name"},
	    {"", "--domain=", "domain = ``: expected a host name"},
	    {"public-url = localhost:8000\n", NULL, "expected http://localhost or https://localhost"},
	    {"public-url = https://localhost/spaces\n", NULL, "expected http://localhost or https://localhost"},
	    {"public-url = https://me@localhost\n", NULL, "expected http://localhost or https://localhost"},
	    {"public-url = https://localhost:\n", NULL, "expected http://localhost or https://localhost"},
	    {"public-url = http://\n", NULL, "expected http://localhost or https://localhost"},
	    {"public-url = https://example.org\n", NULL, "its host has to be the domain, which is `localhost`"},
	    {"proxies = 17\n", NULL, "proxies = 17: expected at most 16"},
	    {"id-base = 0\n", NULL, "clear of real accounts"},
	    {"egress = all\n", NULL, "internet, list or none"},
	    {"egress = list\n", NULL, "egress-list has to name"},
	    {"egress-list = a.test, 10.0.0.1\n", NULL, "never reachable"},
	    {"builds = 0\n", NULL, "expected 1 to 64"},
	    {"hold-timeout = 0\n", NULL, "hold-timeout, hold-requests: expected"},
	    {"hold-timeout = 61m\n", NULL, "hold-timeout, hold-requests: expected"},
	    {"hold-requests = 0\n", NULL, "hold-timeout, hold-requests: expected"},
	    {"drain-timeout = 50d\n", NULL, "drain-timeout: expected"},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct config c;
		struct err err = ERR_INIT;
		assert_int_equal(load(&c, &err, rows[i].text, rows[i].arg), -1);
		if (!strstr(err.msg, rows[i].says))
			fail_msg("`%s` does not say `%s`", err.msg, rows[i].says);
		config_release(&c);
	}
}

/* As people write it: a slash at the end is none of an address that others are made from. */
static void public_url_is_completed(void **state)
{
	static const struct {
		const char *text, *url;
	} rows[] = {
	    {"public-url = https://localhost/\n", "https://localhost"},
	    {"public-url = http://localhost:8000//\n", "http://localhost:8000"},
	    {"public-url = https://Spaces.Test:8443\ndomain = spaces.test\n", "https://Spaces.Test:8443"},
	    {"domain = spaces.test\n", "http://spaces.test:7000"},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct config c;
		struct err err = ERR_INIT;
		assert_int_equal(load(&c, &err, rows[i].text, NULL), 0);
		assert_string_equal(c.public_url, rows[i].url);
		config_release(&c);
	}
}

/* Names of what differs, by what it takes to change it; what may change at once does, and only that. */
static void changes(void **state)
{
	cleanup_buf struct buf now = BUF_INIT, later = BUF_INIT, never = BUF_INIT, none = BUF_INIT;
	struct config a, b;
	struct err err = ERR_INIT;

	assert_int_equal(load(&a, &err, "memory = 1G\negress-list = a.test\n", NULL), 0);
	assert_int_equal(load(&b, &err,
			      "memory = 2G\negress = list\negress-list = a.test b.test\nlog-level = debug\n"
			      "listen = 0.0.0.0:80\ncpus = 1.5\n",
			      NULL),
			 0);
	config_changes(&a, &b, CONFIG_AT_RELOAD, &now);
	config_changes(&a, &b, CONFIG_AT_UPGRADE, &later);
	config_changes(&a, &b, CONFIG_AT_START, &never);
	config_changes(&a, &a, CONFIG_AT_RELOAD, &none);
	assert_string_equal(now.data, "memory, cpus, egress, egress-list");
	assert_string_equal(later.data, "public-url, log-level");
	assert_string_equal(never.data, "listen");
	assert_int_equal(none.len, 0);
	config_adopt(&a, &b);
	assert_true(a.memory == 2ULL << 30 && b.memory == 1ULL << 30);
	assert_int_equal(a.cpu_milli, 1500);
	assert_int_equal(a.egress, EGRESS_LIST);
	assert_string_equal(a.egress_list[1], "b.test");
	assert_null(b.egress_list[1]);
	assert_string_equal(a.log_level, "info");
	assert_string_equal(a.listen, "127.0.0.1:7000");
	config_release(&a);
	config_release(&b);
}

static int setup(void **state)
{
	int fd = mkstemp(file);
	return fd < 0 ? -1 : close(fd);
}
static int teardown(void **state)
{
	return unlink(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(sizes_times_and_cpus),
	    cmocka_unit_test(command_line_goes_over_the_file),
	    cmocka_unit_test(mistakes_say_where_and_what),
	    cmocka_unit_test(public_url_is_completed),
	    cmocka_unit_test(changes),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
