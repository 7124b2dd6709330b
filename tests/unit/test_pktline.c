/* pkt-line, side-band packets, and what of an app's output may reach a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "spaced/git/pktline.h"
#include "spaced/git/sideband.h"

static void parses_packets(void **state)
{
	static const struct {
		const char *in;
		size_t n;
		ssize_t want;
		enum pkt_kind kind;
		const char *data;
	} cases[] = {
	    {"0000", 4, 4, PKT_FLUSH, ""},
	    {"0001rest", 8, 4, PKT_DELIM, ""},
	    {"0002", 4, 4, PKT_END, ""},
	    {"0004", 4, 4, PKT_DATA, ""},
	    {"0006a\n", 6, 6, PKT_DATA, "a\n"},
	    {"000Aabcdef", 10, 10, PKT_DATA, "abcdef"},
	    {"0006a", 5, 0, 0, NULL}, /* more is needed */
	    {"000", 3, 0, 0, NULL},
	    {"", 0, 0, 0, NULL},
	    {"0003", 4, -1, 0, NULL},
	    {"fff1", 4, -1, 0, NULL}, /* longer than any packet */
	    {"ffff", 4, -1, 0, NULL},
	    {"00g0", 4, -1, 0, NULL},
	    {"x", 1, -1, 0, NULL}, /* no need to wait for more */
	    {" 004", 4, -1, 0, NULL},
	    {"+004", 4, -1, 0, NULL},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct pkt p = {0};
		assert_int_equal(pkt_parse(cases[i].in, cases[i].n, &p), cases[i].want);
		if (cases[i].want <= 0)
			continue;
		assert_int_equal(p.kind, cases[i].kind);
		assert_true(str_eq(p.data, cases[i].data));
	}
}

static void longest_packet(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	char *data = xcalloc(1, PKT_DATA_MAX);
	struct pkt p;

	pkt_add(&b, data, PKT_DATA_MAX);
	assert_int_equal(b.len, PKT_MAX);
	assert_int_equal(pkt_parse(b.data, b.len, &p), PKT_MAX);
	assert_int_equal(p.data.n, PKT_DATA_MAX);
	free(data);
}

static void bands_are_cut_to_packets(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	size_t n = 200000, seen = 0, at = 0;
	char *data = xmalloc(n);

	memset(data, 'x', n);
	pkt_band(&b, 2, data, n);
	free(data);
	while (at < b.len) {
		struct pkt p;
		ssize_t k = pkt_parse(b.data + at, b.len - at, &p);
		assert_true(k > 5);
		assert_int_equal(p.data.p[0], 2);
		seen += p.data.n - 1;
		at += (size_t)k;
	}
	assert_int_equal(seen, n);
}

static void chomps_one_line_end(void **state)
{
	assert_true(str_eq(pkt_chomp(STR("a\n")), "a"));
	assert_true(str_eq(pkt_chomp(STR("a\n\n")), "a\n"));
	assert_true(str_eq(pkt_chomp(STR("")), ""));
}

static void check_filter(const char *in, size_t n, const char *want)
{
	/* whole, and cut at every place: the result is the same */
	for (size_t cut = 0; cut <= n; cut++) {
		cleanup_buf struct buf out = BUF_INIT;
		struct text_filter f = {0};
		text_filter(&f, in, cut, &out);
		text_filter(&f, in + cut, n - cut, &out);
		text_filter_end(&f, &out);
		assert_string_equal(out.data ? out.data : "", want);
	}
	/* byte by byte */
	cleanup_buf struct buf out = BUF_INIT;
	struct text_filter f = {0};
	for (size_t i = 0; i < n; i++)
		text_filter(&f, in + i, 1, &out);
	text_filter_end(&f, &out);
	assert_string_equal(out.data ? out.data : "", want);
}
#define FILTER(in, want) check_filter(in, sizeof(in) - 1, want)

static void output_is_made_harmless(void **state)
{
	FILTER("plain\ttext\n", "plain\ttext\n");
	FILTER("\33[1;31mred\33[0m\n", "\33[1;31mred\33[0m\n");
	FILTER("10%\r20%\r\ndone\n", "10%\n20%\ndone\n");
	FILTER("\33]0;title\a", "?]0;title?");
	FILTER("\33[2J\33[H", "?[2J?[H");
	FILTER("\33[31", "????"); /* cut off */
	FILTER("\33[?25l", "?[?25l");
	FILTER("a\0b\b\177", "a?b??");
	FILTER("h\303\251 \342\202\254 \360\237\232\200", "h\303\251 \342\202\254 \360\237\232\200");
	FILTER("\302\233"
	       "31m",
	       "??31m"); /* C1 CSI as UTF-8 */
	FILTER("\233"
	       "31m",
	       "?31m");				 /* and as a byte */
	FILTER("\355\240\200", "???");		 /* a surrogate */
	FILTER("\300\257\340\200\257", "?????"); /* overlong */
	FILTER("\364\220\200\200", "????");	 /* beyond U+10FFFF */
	FILTER("\33[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1m", "?[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1m");
	FILTER("\33\33[31mx", "?\33[31mx");
	FILTER("\303\33[0m", "?\33[0m");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(parses_packets),		cmocka_unit_test(longest_packet),
	    cmocka_unit_test(bands_are_cut_to_packets), cmocka_unit_test(chomps_one_line_end),
	    cmocka_unit_test(output_is_made_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
