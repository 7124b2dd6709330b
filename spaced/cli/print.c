/* Printing: JSON, aligned tables, and text of outsiders that must not steer the terminal. */
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/limits.h"
#include "spaced/cli/cli.h"

int complain(const char *fmt, ...)
{
	va_list ap;

	fputs("spacectl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return CLI_FAILED;
}

#define C1_LEAD 0xc2
/* U+0080 to U+009F in UTF-8: U+009B is what ESC [ is, to many a terminal. */
static bool is_c1(const char *p)
{
	return (unsigned char)p[0] == C1_LEAD && ((unsigned char)p[1] & 0xe0) == 0x80;
}

/* jansson escapes the control characters of ASCII, but not these; in JSON they can only be in strings. */
static void put_json(const json_t *j, size_t flags)
{
	cleanup_free char *text = json_dumps(j, flags | JSON_ENCODE_ANY);

	for (const char *p = text ? text : "null"; *p; p++) {
		if (is_c1(p))
			printf("\\u%04x", (unsigned char)*++p);
		else if (*p == 0x7f)
			fputs("\\u007f", stdout);
		else
			putchar(*p);
	}
	putchar('\n');
}

void print_json(const json_t *j)
{
	put_json(j, JSON_INDENT(2));
}

void print_json_line(const json_t *j)
{
	put_json(j, JSON_COMPACT);
}

/* ---- cells ---- */

/* "2026-01-02T03:04:05.678Z" -> local "2026-01-02 03:04:05"; other strings stay. */
static char *date_or_text(const char *s)
{
	struct tm tm = {0};
	char out[32];
	const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!end || *end != '.' || end[strlen(end) - 1] != 'Z')
		return xstrdup(s);
	time_t t = timegm(&tm);
	if (!localtime_r(&t, &tm) || !strftime(out, sizeof(out), "%Y-%m-%d %H:%M:%S", &tm))
		return xstrdup(s);
	return xstrdup(out);
}

static json_t *look_up(json_t *row, const char *column)
{
	const char *keys = strchr(column, '=') + 1;
	cleanup_free char *copy = xstrndup(keys, strcspn(keys, ":"));
	char *at = copy, *key;

	while (row && (key = strsep(&at, ".")))
		row = json_object_get(row, key);
	return row;
}

/* What a column shows; malloc'd, without control characters. */
static char *cell(json_t *row, const char *column)
{
	json_t *v = look_up(row, column);
	char *s, bytes[16];

	if (json_is_string(v))
		s = date_or_text(json_string_value(v));
	else if (json_is_boolean(v))
		s = xstrdup(json_is_true(v) ? "yes" : "no");
	else if (json_is_integer(v) && strchr(column, ':')) {
		limits_bytes((uint64_t)json_integer_value(v), bytes);
		s = xstrdup(bytes);
	} else if (json_is_integer(v))
		s = xasprintf("%lld", (long long)json_integer_value(v));
	else
		s = xstrdup("-");
	for (char *p = s; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
		else if (is_c1(p))
			p[0] = p[1] = ' ';
	return s;
}

/* Width in characters, not bytes. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void put_padded(const char *s, size_t to, bool last)
{
	fputs(s, stdout);
	for (size_t n = width(s); !last && n < to + 2; n++)
		putchar(' ');
}

void print_table(json_t *rows, const char *const *columns, size_t n, const char *empty)
{
	size_t count = json_array_size(rows);
	cleanup_free size_t *widths = xcalloc(n, sizeof(*widths));
	cleanup_free char **cells = xcalloc(count * n + 1, sizeof(*cells));

	if (!count) {
		/* Not on stdout: a script that counts lines sees none. */
		fprintf(stderr, "%s\n", empty);
		return;
	}
	for (size_t k = 0; k < n; k++)
		widths[k] = strcspn(columns[k], "=");
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < n; k++) {
			char *s = cells[i * n + k] = cell(json_array_get(rows, i), columns[k]);
			if (width(s) > widths[k])
				widths[k] = width(s);
		}
	for (size_t k = 0; k < n; k++) {
		cleanup_free char *title = xstrndup(columns[k], strcspn(columns[k], "="));
		put_padded(title, widths[k], k + 1 == n);
	}
	putchar('\n');
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < n; k++) {
			put_padded(cells[i * n + k], widths[k], k + 1 == n);
			free(cells[i * n + k]);
		}
		putchar('\n');
	}
}

void print_fields(json_t *object, const char *const *columns, size_t n)
{
	size_t widest = 0;

	for (size_t k = 0; k < n; k++)
		if (strcspn(columns[k], "=") > widest)
			widest = strcspn(columns[k], "=");
	for (size_t k = 0; k < n; k++) {
		json_t *v = look_up(object, columns[k]);
		if (!v || json_is_null(v) || (json_is_string(v) && !*json_string_value(v)))
			continue;
		cleanup_free char *title = xstrndup(columns[k], strcspn(columns[k], "=")),
				  *s = cell(object, columns[k]);
		put_padded(title, widest, false);
		puts(s);
	}
}

/* ---- logs ---- */

/* Where a byte stands: in text, behind a lead byte of C1, behind ESC, or inside "ESC [ digits ;", which is let through when it
 * ends in 'm'. */
size_t make_harmless(struct harmless *h, const char *p, size_t n, char *out)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char ch = (unsigned char)p[i];
		if (h->state == HARMLESS_LEAD) {
			h->state = HARMLESS_TEXT;
			if ((ch & 0xe0) == 0x80)
				continue;
			out[len++] = (char)C1_LEAD;
		}
		if (h->state == HARMLESS_ESCAPED && ch == '[') {
			h->state = HARMLESS_SEQUENCE;
		} else if (h->state == HARMLESS_SEQUENCE && (strchr("0123456789;", ch) && ch) &&
			   h->nheld < sizeof h->held) {
			h->held[h->nheld++] = (char)ch;
		} else if (h->state == HARMLESS_SEQUENCE && ch == 'm') {
			out[len++] = 033;
			out[len++] = '[';
			memcpy(out + len, h->held, h->nheld);
			len += h->nheld;
			out[len++] = 'm';
			h->state = HARMLESS_TEXT;
		} else if (ch == C1_LEAD && h->state != HARMLESS_SEQUENCE) {
			h->state = HARMLESS_LEAD;
		} else if (ch == 033) {
			h->state = HARMLESS_ESCAPED;
			h->nheld = 0;
		} else {
			/* The end of a sequence that moves the cursor or asks the terminal: dropped with it. */
			bool swallow = h->state == HARMLESS_SEQUENCE;
			h->state = HARMLESS_TEXT;
			if (!swallow && (ch >= 0x20 || strchr("\n\t\r", ch)) && ch != 0x7f)
				out[len++] = (char)ch;
		}
	}
	return len;
}

void print_harmless(const char *p, size_t n)
{
	static struct harmless state;
	static int terminal = -1;
	char out[4096 + HARMLESS_MORE];

	if (terminal < 0)
		terminal = isatty(STDOUT_FILENO);
	while (n) {
		size_t take = n < 4096 ? n : 4096;
		if (terminal)
			fwrite(out, 1, make_harmless(&state, p, take, out), stdout);
		else
			fwrite(p, 1, take, stdout);
		p += take;
		n -= take;
	}
	fflush(stdout);
}
