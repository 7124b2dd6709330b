/* The sandbox spec: what is refused, and that the wire form brings back what was sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sandbox/spec.h"

static struct sandbox_spec sample(void)
{
	struct sandbox_spec s = {.profile = SANDBOX_APP, .id_base = 1 << 20, .uid = 1000, .gid = 1000};

	snprintf(s.name, sizeof s.name, "app-12-3");
	s.argv = xcalloc(3, sizeof *s.argv);
	s.argv[0] = xstrdup("python3");
	s.argv[1] = xstrdup("app.py");
	s.env = xcalloc(2, sizeof *s.env);
	s.env[0] = xstrdup("PATH=/usr/bin");
	s.layers[s.nlayers++] = xstrdup("deps-0123456789abcdef");
	s.top = xstrdup("top-12-3");
	s.binds[s.nbinds++] = (struct sandbox_bind){
	    .volume = xstrdup("data-12"),
	    .target = xstrdup("/data"),
	    .write = true,
	};
	s.cwd = xstrdup("/app");
	s.limits = (struct sandbox_limits){.memory = 512 << 20, .cpu_milli = 1500, .pids = 256, .log_bytes = 7};
	return s;
}

static void good_one_passes(void **state)
{
	struct sandbox_spec s = sample();
	struct err err = ERR_INIT;

	assert_int_equal(sandbox_spec_check(&s, &err), 0);
	sandbox_spec_release(&s);
	assert_null(s.argv);
}

static void names(void **state)
{
	static const char *const good[] = {"a", "0", "app-1-2", "src-00ff"};
	static const char *const bad[] = {"",	 ".",	"..",  "-rf",	   "a/b", "A",	  "a.b",
					  "a b", "a\n", "%2e", "\xc3\xa4", "a_b", "../a", "a\\b"};
	char longest[SANDBOX_NAME_MAX + 2];

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(sandbox_name_ok(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(sandbox_name_ok(bad[i]));
	memset(longest, 'a', sizeof longest);
	longest[SANDBOX_NAME_MAX] = '\0';
	assert_true(sandbox_name_ok(longest));
	longest[SANDBOX_NAME_MAX] = 'a';
	longest[SANDBOX_NAME_MAX + 1] = '\0';
	assert_false(sandbox_name_ok(longest));
}

static void refused(struct sandbox_spec *s, const char *why)
{
	struct err err = ERR_INIT;

	if (sandbox_spec_check(s, &err) == 0)
		fail_msg("accepted: %s", why);
	assert_true(err.msg[0]);
	sandbox_spec_release(s);
}

static void bad_ones_are_refused(void **state)
{
	static const char *const paths[] = {"app", "", "/app/", "//app", "/app/..", "/./app", "/app/../etc", "/a//b"};
	struct sandbox_spec s;

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		s = sample();
		free(s.cwd);
		s.cwd = xstrdup(paths[i]);
		refused(&s, paths[i]);
		s = sample();
		free(s.binds[0].target);
		s.binds[0].target = xstrdup(paths[i]);
		refused(&s, paths[i]);
	}
	s = sample();
	s.id_base = 1000;
	refused(&s, "a range over the host's users");
	s = sample();
	s.id_base = UINT32_MAX - 100;
	refused(&s, "a range over the end");
	s = sample();
	s.uid = SANDBOX_IDS - 1;
	refused(&s, "an id that is not mapped");
	s = sample();
	s.binds[0].source = xstrdup("/etc");
	refused(&s, "a bind with two sources");
	s = sample();
	free(s.binds[0].target);
	s.binds[0].target = xstrdup("/");
	refused(&s, "a bind over the root");
	s = sample();
	s.limits.memory = SANDBOX_MEMORY_MIN - 1;
	refused(&s, "less memory than the walls need");
	s = sample();
	s.limits.pids = 1;
	refused(&s, "no process besides pid 1");
	s = sample();
	s.limits.io_bytes = SANDBOX_IO_MIN - 1;
	refused(&s, "a disk that stands still");
	s = sample();
	free(s.argv[0]);
	s.argv[0] = xstrdup("");
	refused(&s, "no program");
	s = sample();
	free(s.env[0]);
	s.env[0] = xstrdup("=x");
	refused(&s, "an environment entry without a name");
	s = sample();
	s.profile = (enum sandbox_profile)9;
	refused(&s, "an unknown profile");
}

static void wire_form(void **state)
{
	struct sandbox_spec s = sample(), back;
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	sandbox_spec_encode(&s, &b);
	struct reader r = reader_of(b.data, b.len);
	assert_int_equal(sandbox_spec_decode(&r, &back, &err), 0);
	assert_true(get_ok(&r));
	assert_string_equal(back.name, s.name);
	assert_string_equal(back.argv[1], "app.py");
	assert_null(back.argv[2]);
	assert_string_equal(back.env[0], "PATH=/usr/bin");
	assert_string_equal(back.layers[0], s.layers[0]);
	assert_string_equal(back.binds[0].volume, "data-12");
	assert_null(back.binds[0].source);
	assert_true(back.binds[0].write);
	assert_null(back.hostname);
	assert_memory_equal(&back.limits, &s.limits, sizeof s.limits);
	sandbox_spec_release(&back);

	/* Any shorter message is refused, and nothing of it stays behind (ASan). */
	for (size_t n = 0; n < b.len; n++) {
		r = reader_of(b.data, n);
		assert_int_equal(sandbox_spec_decode(&r, &back, &err), -1);
		assert_int_equal(back.nlayers, 0);
	}
	sandbox_spec_release(&s);
}

static void exit_record(void **state)
{
	struct sandbox_exit e = {.status = 137, .oom = true, .log_dropped = 1ULL << 40, .reason = "killed"}, back;
	cleanup_buf struct buf b = BUF_INIT;

	sandbox_exit_encode(&e, &b);
	struct reader r = reader_of(b.data, b.len);
	assert_true(sandbox_exit_decode(&r, &back));
	assert_true(get_ok(&r));
	assert_int_equal(back.status, 137);
	assert_true(back.oom);
	assert_false(back.timeout);
	assert_int_equal(back.log_dropped, 1ULL << 40);
	assert_string_equal(back.reason, "killed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_one_passes), cmocka_unit_test(names),	      cmocka_unit_test(bad_ones_are_refused),
	    cmocka_unit_test(wire_form),       cmocka_unit_test(exit_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
