/* See access_line.h. Called for each request: written by hand, without printf. */
#include "proxy/access_line.h"

#include <ctype.h>
#include <strings.h>
#include <time.h>

#define HIDDEN "***"
#define TOKEN_MIN 20 /* letters and digits behind "hf_" */

/* ---- pieces ---- */

static void add_number(struct buf *b, uint64_t v)
{
	char text[20];
	size_t at = sizeof text;

	do
		text[--at] = (char)('0' + v % 10);
	while (v /= 10);
	buf_add(b, text + at, sizeof text - at);
}

/* RFC 3339 in UTC, with milliseconds. The second is seldom another one than before. */
static void add_time(struct buf *b, uint64_t at)
{
	static char text[sizeof "2026-01-01T00:00:00"];
	static time_t second = -1;
	time_t t = (time_t)(at / 1000);
	unsigned ms = (unsigned)(at % 1000);

	if (t != second) {
		struct tm tm;
		gmtime_r(&t, &tm);
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
		second = t;
	}
	buf_add(b, text, sizeof text - 1);
	const char rest[] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
	buf_add(b, rest, sizeof rest);
}

static const bool plain[256] = {[' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true};

/* What may stand in a string as it is, in runs. */
static void add_text(struct buf *b, struct str s)
{
	static const char hex[] = "0123456789abcdef";
	size_t from = 0;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (plain[c])
			continue;
		buf_add(b, s.p + from, i - from);
		from = i + 1;
		if (c == '"' || c == '\\')
			buf_add(b, (char[]){'\\', (char)c}, 2);
		else
			buf_add(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
	}
	buf_add(b, s.p + from, s.n - from);
}

#define ADD(b, literal) buf_add(b, literal, sizeof(literal) - 1)

static void add_string(struct buf *b, const char *name, size_t n, struct str value)
{
	if (!value.n)
		return;
	buf_add(b, name, n);
	add_text(b, value);
	buf_addc(b, '"');
}
#define STRING(b, name, value) add_string(b, ",\"" name "\":\"", sizeof(",\"" name "\":\"") - 1, value)
#define NUMBER(b, name, value) (ADD(b, ",\"" name "\":"), add_number(b, value))

/* ---- secrets ---- */

static int digit(unsigned char c)
{
	return c >= '0' && c <= '9' ? c - '0' : isxdigit(c) ? (c | 0x20) - 'a' + 10 : -1;
}

/* The name of a parameter in lower case, decoded once, as an app may read it. */
static size_t plain_name(struct str s, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n && n < size - 1; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '%' && i + 2 < s.n) {
			int hi = digit((unsigned char)s.p[i + 1]), lo = digit((unsigned char)s.p[i + 2]);
			if (hi >= 0 && lo >= 0) {
				c = (unsigned char)(hi << 4 | lo);
				i += 2;
			}
		}
		out[n++] = (char)tolower(c);
	}
	out[n] = '\0';
	return n;
}

static bool is_secret(struct str name)
{
	static const char *const whole[] = {"__sign", "sign", "sig", "key", "auth", "jwt", "code", "pwd", "pass"};
	static const char *const parts[] = {"token",  "secret",	 "passw",   "signature", "credential",
					    "apikey", "api_key", "api-key", "session",	 "authorization"};
	char text[64];

	if (!plain_name(name, text, sizeof text))
		return false;
	for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
		if (strcmp(text, whole[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strstr(text, parts[i]))
			return true;
	return name.n >= sizeof text; /* no name of anything: not looked at to its end */
}

/* "hf_" and many letters and digits: a token, wherever it stands. */
static void add_without_tokens(struct buf *b, struct str s)
{
	size_t from = 0;

	for (const char *p = s.p; (p = memmem(p, s.n - (size_t)(p - s.p), "hf_", 3)) != NULL;) {
		size_t at = (size_t)(p - s.p) + 3, end = at;
		while (end < s.n && isalnum((unsigned char)s.p[end]))
			end++;
		if (end - at >= TOKEN_MIN) {
			add_text(b, (struct str){s.p + from, at - from});
			ADD(b, HIDDEN);
			from = end;
		}
		p = s.p + end;
	}
	add_text(b, (struct str){s.p + from, s.n - from});
}

/* Up to the query of an address that is encoded in it (a way back, say), whose parameters are not looked at. */
static size_t outer(struct str s)
{
	for (size_t i = 0; i + 3 <= s.n; i++)
		if (s.p[i] == '%' && s.p[i + 1] == '3' && (s.p[i + 2] | 0x20) == 'f')
			return i + 3;
	return s.n;
}

static void add_pair(struct buf *b, struct str pair)
{
	const char *eq = memchr(pair.p, '=', pair.n);
	size_t name = eq ? (size_t)(eq - pair.p) : 0;
	bool secret = eq && is_secret((struct str){pair.p, name});
	size_t shown = secret ? name + 1 : outer(pair);

	add_without_tokens(b, (struct str){pair.p, shown});
	if (secret || shown < pair.n)
		ADD(b, HIDDEN);
}

static void add_path(struct buf *b, struct str path)
{
	const char *query = memchr(path.p, '?', path.n);
	size_t at = query ? (size_t)(query - path.p) + 1 : path.n;

	add_without_tokens(b, (struct str){path.p, at});
	while (at < path.n) {
		size_t end = at;
		while (end < path.n && path.p[end] != '&' && path.p[end] != ';' && path.p[end] != '?')
			end++;
		add_pair(b, (struct str){path.p + at, end - at});
		if (end < path.n)
			add_text(b, (struct str){path.p + end, 1});
		at = end + 1;
	}
}

/* ---- the line ---- */

static struct str cut(struct str s, size_t max)
{
	return (struct str){s.p, s.n < max ? s.n : max};
}

void access_line(struct buf *out, const struct access_entry *e)
{
	struct str path = cut(e->path, ACCESS_PATH_MAX);

	ADD(out, "{\"time\":\"");
	add_time(out, e->at);
	ADD(out, "\",\"space\":\"");
	add_text(out, e->space);
	buf_addc(out, '"');
	STRING(out, "host", e->host);
	STRING(out, "method", e->method);
	if (path.n) {
		ADD(out, ",\"path\":\"");
		add_path(out, path);
		ADD(out, "\",\"protocol\":\"HTTP/1.");
		add_number(out, e->minor);
		buf_addc(out, '"');
	}
	NUMBER(out, "status", e->status);
	NUMBER(out, "bytes_in", e->bytes_in);
	NUMBER(out, "bytes_out", e->bytes_out);
	NUMBER(out, "duration_ms", e->duration_ms);
	if (e->answered)
		NUMBER(out, "upstream_ms", e->upstream_ms);
	STRING(out, "client", e->client);
	STRING(out, "user_agent", cut(e->agent, ACCESS_AGENT_MAX));
	STRING(out, "request_id", e->request_id);
	if (e->held)
		NUMBER(out, "held_ms", e->held_ms);
	if (e->woke)
		ADD(out, ",\"woke\":true");
	if (e->websocket)
		ADD(out, ",\"websocket\":true");
	if (e->aborted)
		ADD(out, ",\"aborted\":true");
	STRING(out, "refused", STRZ(refusal_name(e->refused)));
	STRING(out, "detail", STRZ(e->detail ? e->detail : ""));
	if (e->sample > 1)
		NUMBER(out, "sample", e->sample);
	ADD(out, "}\n");
}

void access_line_dropped(struct buf *out, uint64_t at, uint64_t n)
{
	ADD(out, "{\"time\":\"");
	add_time(out, at);
	ADD(out, "\",\"space\":\"\"");
	NUMBER(out, "dropped", n);
	ADD(out, "}\n");
}

static bool line_ok(struct str line)
{
	static const char begin[] = "{\"time\":\"", space[] = "\",\"space\":\"";

	if (line.n <= ACCESS_SPACE_AT || line.n > ACCESS_LINE_MAX || line.p[line.n - 1] != '}' ||
	    memcmp(line.p, begin, sizeof begin - 1) != 0 ||
	    memcmp(line.p + ACCESS_SPACE_AT - (sizeof space - 1), space, sizeof space - 1) != 0)
		return false;
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] < 0x20 || line.p[i] == 0x7f)
			return false;
	return true;
}

bool access_lines_ok(struct str bytes, uint32_t lines)
{
	for (const char *end; bytes.n; bytes = (struct str){end + 1, bytes.n - (size_t)(end + 1 - bytes.p)}) {
		end = memchr(bytes.p, '\n', bytes.n);
		if (!end || !lines-- || !line_ok((struct str){bytes.p, (size_t)(end - bytes.p)}))
			return false;
	}
	return lines == 0;
}
