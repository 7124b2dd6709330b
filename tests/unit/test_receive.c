/* Commands of a push, the decision about refs, the report, and the pack scanner. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "spaced/git/inflate.h"
#include "spaced/git/pack_scan.h"
#include "spaced/git/receive.h"
#include "spaced/git/refs.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static int feed(struct receive *r, const char *data, size_t n, struct err *err)
{
	struct pkt p = {PKT_DATA, {data, n}};

	return receive_packet(r, &p, err);
}
#define FEED(r, lit) feed(r, lit, sizeof(lit) - 1, &err)

static int flush(struct receive *r)
{
	struct err err = ERR_INIT;
	struct pkt p = {PKT_FLUSH, {"", 0}};

	return receive_packet(r, &p, &err);
}

static void reads_commands(void **state)
{
	struct receive r;
	struct err err = ERR_INIT;

	receive_init(&r, 10, 100);
	assert_int_equal(FEED(&r, "shallow " A "\n"), 0);
	assert_int_equal(FEED(&r,
			      OID_ZERO " " A " refs/heads/main\0 report-status-v2 side-band-64k atomic push-options "
				       "object-format=sha1 agent=git/2.39.5 unknown\n"),
			 0);
	assert_int_equal(FEED(&r, A " " OID_ZERO " refs/tags/v1\n"), 0);
	assert_int_equal(FEED(&r, A " " B " refs/other/x"), 0);
	assert_true(r.report && r.side_band && r.atomic && r.push_options);
	assert_int_equal(flush(&r), 0);
	assert_int_equal(r.state, RECEIVE_OPTIONS);
	assert_int_equal(FEED(&r, "nowait\n"), 0);
	assert_int_equal(flush(&r), 0);
	assert_int_equal(r.state, RECEIVE_PACK);
	assert_int_equal(r.ncommands, 3);
	assert_string_equal(r.commands[0].name, "refs/heads/main");
	assert_string_equal(r.commands[0].old_oid, OID_ZERO);
	assert_string_equal(r.commands[1].new_oid, OID_ZERO);
	assert_null(r.commands[1].error);
	assert_non_null(r.commands[2].error);
	assert_string_equal(r.options[0], "nowait");
	assert_true(receive_wants_pack(&r));
	receive_release(&r);
}

static void refuses_malformed_commands(void **state)
{
	static const struct {
		const char *p;
		size_t n;
	} bad[] = {
#define BAD(lit) {lit, sizeof(lit) - 1}
	    BAD(""),
	    BAD("x"),
	    BAD(A " " B " "),
	    BAD(A " " B),
	    BAD(A "  " B " refs/heads/x"),
	    BAD("AAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa " B " refs/heads/x"),
	    BAD("shallow xyz"),
	    BAD("push-cert\0caps"),
	    BAD(A " " B " refs/heads/x\0object-format=sha256"),
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct receive r;
		struct err err = ERR_INIT;
		receive_init(&r, 10, 100);
		assert_int_equal(feed(&r, bad[i].p, bad[i].n, &err), -1);
		assert_true(err.msg[0]);
		receive_release(&r);
	}
}

static void limits_of_a_push(void **state)
{
	struct receive r;
	struct err err = ERR_INIT;
	char long_name[6000];

	receive_init(&r, 2, 100);
	assert_int_equal(FEED(&r, OID_ZERO " " A " refs/heads/a\0push-options"), 0);
	assert_int_equal(FEED(&r, OID_ZERO " " A " refs/heads/b\0again"), -1); /* capabilities twice */
	assert_int_equal(FEED(&r, OID_ZERO " " A " refs/heads/b"), 0);
	assert_int_equal(FEED(&r, OID_ZERO " " A " refs/heads/c"), -1);
	assert_int_equal(flush(&r), 0);
	assert_int_equal(FEED(&r, "a\nb"), -1);
	for (int i = 0; i < RECEIVE_MAX_OPTIONS; i++)
		assert_int_equal(FEED(&r, "x"), 0);
	assert_int_equal(FEED(&r, "x"), -1);
	receive_release(&r);

	receive_init(&r, 2, 100);
	memset(long_name, 'x', sizeof long_name);
	memcpy(long_name, OID_ZERO " " A " refs/heads/", 93); /* NOLINT(bugprone-not-null-terminated-result) */
	assert_int_equal(feed(&r, long_name, 300, &err), 0);  /* wrong for itself only */
	assert_non_null(r.commands[0].error);
	assert_int_equal(feed(&r, long_name, sizeof long_name, &err), -1);
	receive_release(&r);
}

static void ref_names(void **state)
{
	static const char *const good[] = {"refs/heads/main", "refs/heads/a/b/c",    "refs/tags/v1.0",
					   "refs/heads/a@b",  "refs/heads/\303\251", "refs/heads/a.lockx",
					   "refs/heads/{x}"};
	static const char *const bad[] = {"HEAD",
					  "refs/heads/",
					  "refs/heads",
					  "refs/pull/1",
					  "refs/heads/a..b",
					  "refs/heads/.a",
					  "refs/heads/a/.b",
					  "refs/heads/a.",
					  "refs/heads/a.lock",
					  "refs/heads/a.lock/b",
					  "refs/heads/a//b",
					  "refs/heads/a/",
					  "refs/heads/a b",
					  "refs/heads/a~1",
					  "refs/heads/a^",
					  "refs/heads/a:b",
					  "refs/heads/a?",
					  "refs/heads/a*",
					  "refs/heads/a[",
					  "refs/heads/a\\b",
					  "refs/heads/a@{1}",
					  "refs/heads/@",
					  "refs/heads/HEAD",
					  "refs/heads/-a",
					  "refs/heads/a/-b",
					  "refs/heads/\33[2J",
					  "refs/heads/\177"};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_null(receive_ref_error(STRZ(good[i]), 100));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!receive_ref_error(STRZ(bad[i]), 100))
			fail_msg("accepted: %s", bad[i]);
	assert_non_null(receive_ref_error(STRZ("refs/heads/abcdef"), 16));
	assert_null(receive_ref_error(STRZ("refs/heads/abcde"), 16));
	assert_non_null(receive_ref_error((struct str){"refs/heads/a\0b", 14}, 100));
}

static void report_is_pkt_lines(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	receive_report_begin(&b, "ok");
	receive_report_ref(&b, "refs/heads/a", NULL);
	receive_report_ref(&b, "refs/heads/b", "no");
	receive_report_end(&b);
	assert_string_equal(b.data, "000eunpack ok\n0014ok refs/heads/a\n0017ng refs/heads/b no\n0000");
}

/* --- refs */

static const char packed[] =
    "# pack-refs with: peeled fully-peeled sorted \n" A " refs/heads/main\n" B " refs/tags/v1\n^" A "\n";

static void refs_round_trip(void **state)
{
	cleanup_ref_table struct ref_table t = {0};
	cleanup_buf struct buf out = BUF_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(ref_table_parse(&t, STRZ(packed), &err), 0);
	assert_int_equal(t.n, 2);
	assert_string_equal(ref_table_find(&t, "refs/tags/v1")->peeled, A);
	assert_null(ref_table_find(&t, "refs/tags/v"));
	ref_table_print(&t, &out);
	assert_string_equal(out.data, packed);
	assert_int_equal(ref_table_parse(&t, STR("^" A "\n"), &err), -1);
	assert_int_equal(ref_table_parse(&t, STR("nonsense\n"), &err), -1);
}

struct step {
	const char *name, *old, *new;
	bool ok;
};

/* Applies `steps` to a repository with main -> A and dir/x -> A; checks each verdict and how many refs are left. */
static void decide(const struct step *steps, size_t n, bool atomic, bool changed, size_t left)
{
	cleanup_ref_table struct ref_table t = {0};
	struct receive r;
	struct err err = ERR_INIT;
	struct ref_rules rules = {.default_ref = "refs/heads/main", .max_refs = 4, .atomic = atomic};

	ref_table_put(&t, "refs/heads/main", A);
	ref_table_put(&t, "refs/heads/dir/x", A);
	receive_init(&r, 10, 100);
	for (size_t i = 0; i < n; i++) {
		char line[200];
		int len = snprintf(line, sizeof line, "%s %s refs/heads/%s", steps[i].old, steps[i].new, steps[i].name);
		assert_int_equal(feed(&r, line, (size_t)len, &err), 0);
	}
	assert_int_equal(ref_table_apply(&t, &r, &rules), changed);
	for (size_t i = 0; i < n; i++)
		if ((r.commands[i].error == NULL) != steps[i].ok)
			fail_msg("%s: %s", steps[i].name, r.commands[i].error ? r.commands[i].error : "accepted");
	if (changed)
		assert_int_equal(t.n, left);
	receive_release(&r);
}
#define DECIDE(atomic, changed, left, ...)                                                                             \
	do {                                                                                                           \
		const struct step steps_[] = {__VA_ARGS__};                                                            \
		decide(steps_, sizeof steps_ / sizeof *steps_, atomic, changed, left);                                 \
	} while (0)

static void refs_are_decided(void **state)
{
	DECIDE(false, true, 2, {"main", A, B, true});
	DECIDE(false, false, 2, {"main", B, A, false});	       /* moved meanwhile */
	DECIDE(false, false, 2, {"main", OID_ZERO, B, false}); /* exists */
	DECIDE(false, false, 2, {"gone", A, B, false});
	DECIDE(false, true, 3, {"new", OID_ZERO, A, true});
	DECIDE(false, false, 2, {"main", A, OID_ZERO, false}); /* the default branch */
	DECIDE(false, true, 1, {"dir/x", A, OID_ZERO, true});
	DECIDE(false, false, 2, {"gone", A, OID_ZERO, false});
	DECIDE(false, false, 2, {"dir", OID_ZERO, A, false}); /* folder in the way */
	DECIDE(false, false, 2, {"main/x", OID_ZERO, A, false});
	DECIDE(false, false, 2, {"dir/x/y/z", OID_ZERO, A, false});
	DECIDE(false, true, 3, {"dir/xy", OID_ZERO, A, true}, {"dir", OID_ZERO, A, false});
	DECIDE(false, true, 2, {"dir", OID_ZERO, B, true}, {"dir/x", A, OID_ZERO, true}); /* deletes go first */
	DECIDE(false, true, 3, {"a", OID_ZERO, B, true}, {"a", OID_ZERO, B, false});	  /* the same twice */
	DECIDE(false, true, 4, {"a", OID_ZERO, B, true}, {"b", OID_ZERO, B, true}, {"c", OID_ZERO, B, false});
	DECIDE(true, true, 3, {"a", OID_ZERO, B, true}, {"main", A, B, true});
	DECIDE(true, false, 2, {"a", OID_ZERO, B, false}, {"main", B, A, false});
	DECIDE(true, false, 2, {"a", OID_ZERO, B, false}, {"-bad", OID_ZERO, B, false});
}

/* --- the pack scanner */

static const struct pack_limits limits = {
    .pack_bytes = 10000, .inflated_bytes = 5000, .object_bytes = 1000, .objects = 5};

static void pack_begin(struct buf *b, unsigned char objects)
{
	buf_add(b, "PACK\0\0\0\2\0\0\0", 11);
	buf_addc(b, (char)objects);
}

static void pack_object(struct buf *b, unsigned type, size_t size, const char *extra, size_t nextra, const void *data,
			size_t n)
{
	uint8_t z[4096];
	uLongf zn = sizeof z;
	unsigned c = type << 4 | (size & 15);

	for (size >>= 4; size; size >>= 7) {
		buf_addc(b, (char)(c | 0x80));
		c = size & 0x7f;
	}
	buf_addc(b, (char)c);
	buf_add(b, extra, nextra);
	assert_int_equal(compress(z, &zn, data, n), Z_OK);
	buf_add(b, z, zn);
}

static int scan(const struct buf *b, size_t step, struct err *err)
{
	struct pack_scan s;
	int r = 0;

	pack_scan_init(&s, &limits);
	for (size_t at = 0; at < b->len && r == 0; at += step)
		r = pack_scan_feed(&s, (const uint8_t *)b->data + at, at + step < b->len ? step : b->len - at, err);
	if (r == 0 && s.state != SCAN_DONE)
		r = err_set(err, 0, "not done");
	pack_scan_release(&s);
	return r;
}

static void expect_scan(const struct buf *b, const char *want)
{
	for (size_t step = 1; step < 50; step += 7) {
		struct err err = ERR_INIT;
		int r = scan(b, step, &err);
		if (!want && r < 0)
			fail_msg("%s", err.msg);
		if (want && (r == 0 || !strstr(err.msg, want)))
			fail_msg("wanted %s, got %s", want, err.msg);
	}
}

static void trailer(struct buf *b)
{
	buf_add(b, "01234567890123456789", 20);
}

static void packs_are_weighed(void **state)
{
	static const char data[1500];
	const char big_delta[] = {100, (char)0xff, (char)0xff, 0x7f}; /* base of 100, result of 2 MB */
	const char delta[] = {100, 100, (char)0x90, 100};
	cleanup_buf struct buf ok = BUF_INIT, b = BUF_INIT;

	pack_begin(&ok, 3);
	pack_object(&ok, 3, 100, "", 0, data, 100);
	size_t second = ok.len;
	char back = (char)(second - 12);
	pack_object(&ok, 6, sizeof delta, &back, 1, delta, sizeof delta);
	pack_object(&ok, 7, sizeof delta, "01234567890123456789", 20, delta, sizeof delta);
	trailer(&ok);
	expect_scan(&ok, NULL);
	buf_addc(&ok, 'x');
	expect_scan(&ok, "behind its end");
	ok.len -= 2;
	expect_scan(&ok, "not done");

	pack_begin(&b, 1);
	pack_object(&b, 3, 1001, "", 0, data, 1001);
	expect_scan(&b, "too big");
	buf_clear(&b);
	pack_begin(&b, 1);
	pack_object(&b, 3, 10, "", 0, data, 1500); /* lies about its size */
	expect_scan(&b, "longer than it says");
	buf_clear(&b);
	pack_begin(&b, 1);
	pack_object(&b, 3, 20, "", 0, data, 10);
	trailer(&b);
	expect_scan(&b, "shorter than it says");
	buf_clear(&b);
	pack_begin(&b, 1);
	pack_object(&b, 7, sizeof big_delta, "01234567890123456789", 20, big_delta, sizeof big_delta);
	expect_scan(&b, "too big");
	buf_clear(&b);
	pack_begin(&b, 1);
	pack_object(&b, 6, sizeof delta, "\5", 1, delta, sizeof delta); /* no object there */
	expect_scan(&b, "delta offset");
	buf_clear(&b);
	pack_begin(&b, 5);
	for (int i = 0; i < 6; i++)
		pack_object(&b, 3, 1000, "", 0, data, 1000);
	trailer(&b);
	expect_scan(&b, "behind its end"); /* five fit exactly; the sixth is no object any more */
	buf_clear(&b);
	pack_begin(&b, 6);
	expect_scan(&b, "6 objects in one push, the limit is 5");
	buf_clear(&b);
	pack_begin(&b, 1);
	pack_object(&b, 5, 1, "", 0, data, 1);
	expect_scan(&b, "unknown object type");
	buf_clear(&b);
	pack_begin(&b, 0);
	trailer(&b);
	expect_scan(&b, NULL);
	buf_clear(&b);
	buf_add(&b, "PACK\0\0\0\4\0\0\0\0", 12);
	expect_scan(&b, "unknown version");
}

static int count_bytes(void *ctx, const void *p, size_t n, struct err *err)
{
	*(size_t *)ctx += n;
	return 0;
}

static void gzip_is_limited_by_what_comes_out(void **state)
{
	size_t n = 3U << 20;
	uint8_t *plain = xcalloc(1, n), *packed_bytes = xmalloc(n);
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = plain;
	z.avail_in = (uInt)n;
	z.next_out = packed_bytes;
	z.avail_out = (uInt)n;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	size_t len = n - z.avail_out;
	deflateEnd(&z);
	for (int i = 0; i < 2; i++) {
		struct inflate in;
		struct err err = ERR_INIT;
		size_t out = 0;
		assert_int_equal(inflate_init(&in, i ? n - 1 : n, &err), 0);
		assert_int_equal(inflate_feed(&in, packed_bytes, len, count_bytes, &out, &err), i ? -1 : 0);
		if (i == 0) {
			assert_int_equal(out, n);
			assert_int_equal(inflate_feed(&in, "x", 1, count_bytes, &out, &err), -1);
		}
		inflate_release(&in);
	}
	free(plain);
	free(packed_bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reads_commands),
	    cmocka_unit_test(refuses_malformed_commands),
	    cmocka_unit_test(limits_of_a_push),
	    cmocka_unit_test(ref_names),
	    cmocka_unit_test(report_is_pkt_lines),
	    cmocka_unit_test(refs_round_trip),
	    cmocka_unit_test(refs_are_decided),
	    cmocka_unit_test(packs_are_weighed),
	    cmocka_unit_test(gzip_is_limited_by_what_comes_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
