/* What requests and responses share: llhttp over one whole head, and the syntax of fields. See http1_impl.h. */
#include <errno.h>

#include "proxy/http1_impl.h"

static const struct {
	const char *name;
	uint8_t len;
	uint8_t id;
} known_fields[] = {
#define K(s, id)                                                                                                       \
	{                                                                                                              \
		s, sizeof(s) - 1, id                                                                                   \
	}
    K("te", FIELD_HOP),
    K("host", FIELD_HOST),
    K("date", FIELD_DATE),
    K("accept", FIELD_ACCEPT),
    K("expect", FIELD_EXPECT),
    K("upgrade", FIELD_UPGRADE),
    K("trailer", FIELD_HOP),
    K("forwarded", FIELD_FORWARDING),
    K("x-real-ip", FIELD_FORWARDING),
    K("connection", FIELD_CONNECTION),
    K("keep-alive", FIELD_HOP),
    K("user-agent", FIELD_USER_AGENT),
    K("content-type", FIELD_CONTENT_TYPE),
    K("x-request-id", FIELD_REQUEST_ID),
    K("content-length", FIELD_CONTENT_LENGTH),
    K("http2-settings", FIELD_HOP),
    K("proxy-connection", FIELD_HOP),
    K("transfer-encoding", FIELD_TRANSFER_ENCODING),
    K("sec-websocket-key", FIELD_WEBSOCKET_KEY),
    K("proxy-authenticate", FIELD_HOP),
    K("proxy-authorization", FIELD_HOP),
    K("sec-websocket-accept", FIELD_WEBSOCKET_ACCEPT),
    K("sec-websocket-version", FIELD_WEBSOCKET_VERSION),
#undef K
};

enum known_field http1_known(struct str name)
{
	if (name.n > 11 && strncasecmp(name.p, "x-forwarded-", 12) == 0)
		return str_ieq(name, "x-forwarded-for")	    ? FIELD_FORWARDED_FOR
		       : str_ieq(name, "x-forwarded-proto") ? FIELD_FORWARDED_PROTO
							    : FIELD_FORWARDING;
	if (name.n > 8 && strncasecmp(name.p, "x-spaced-", 9) == 0)
		return FIELD_FORWARDING;
	for (size_t i = 0; i < sizeof known_fields / sizeof *known_fields && known_fields[i].len <= name.n; i++)
		if (known_fields[i].len == name.n && strncasecmp(name.p, known_fields[i].name, name.n) == 0)
			return known_fields[i].id;
	return FIELD_OTHER;
}

struct str http1_trim(struct str s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s.p++, s.n--;
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* RFC 9110 5.6.2. */
static const bool token_char[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,		['&'] = 1,	   ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,		['^'] = 1,	   ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

bool http1_is_token(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!token_char[(unsigned char)s.p[i]])
			return false;
	return s.n > 0;
}

bool http1_list_next(struct str *list, struct str *item)
{
	while (list->n) {
		const char *comma = memchr(list->p, ',', list->n);
		size_t n = comma ? (size_t)(comma - list->p) : list->n;
		*item = http1_trim((struct str){list->p, n});
		n += comma != NULL;
		list->p += n;
		list->n -= n;
		if (item->n)
			return true;
	}
	return false;
}

bool http1_length(struct str s, uint64_t *v)
{
	return str_digits(s, 18, v);
}

bool http1_nominated(const struct str *tokens, size_t n, struct str name)
{
	for (size_t i = 0; i < n; i++)
		if (http1_same(tokens[i], name))
			return true;
	return false;
}

ssize_t http1_head_end(const char *p, size_t n, size_t seen)
{
	size_t at = seen;

	while (at < n) {
		const char *lf = memchr(p + at, '\n', n - at);
		if (!lf)
			return 0;
		size_t i = (size_t)(lf - p);
		if (i == 0 || p[i - 1] != '\r')
			return -EBADMSG;
		if (i >= 3 && p[i - 2] == '\n' && p[i - 3] == '\r')
			return (ssize_t)i + 1;
		at = i + 1;
	}
	return 0;
}

static int refuse(struct http1_head *h, int status, const char *why)
{
	if (!h->why) {
		h->why = why;
		h->status = status;
	}
	return -1;
}

/* Each name and each value must come as one run: a second one means that llhttp joined something (a folded line). */
static int on_field(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_head *h = parser->data;

	if (h->nfields >= h->max)
		return refuse(h, 431, "too many header fields");
	h->fields[h->nfields++] = (struct http1_field){.name = {at, n}};
	return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_head *h = parser->data;

	if (h->nfields == 0 || h->fields[h->nfields - 1].value.p)
		return refuse(h, 400, "a header field in pieces");
	h->fields[h->nfields - 1].value = (struct str){at, n};
	return 0;
}

static int on_reason(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_head *h = parser->data;
	h->reason = (struct str){at, n};
	return 0;
}

static int on_head(llhttp_t *parser)
{
	return HPE_PAUSED;
}

/* RFC 9112 5.1, 5.2 again, whatever the parser let through: names are tokens directly before the colon, no line is
 * folded, and no control byte, bare CR or NUL is in a value (CVE-2023-30589 and its like). */
static int check_fields(struct http1_head *h)
{
	for (size_t i = 0; i < h->nfields; i++) {
		struct http1_field *f = &h->fields[i];
		if (!http1_is_token(f->name))
			return refuse(h, 400, "a header field name that is no token");
		if (f->name.p[f->name.n] != ':')
			return refuse(h, 400, "white space before a colon");
		for (size_t k = 0; k < f->value.n; k++) {
			unsigned char c = (unsigned char)f->value.p[k];
			if ((c < 0x20 && c != '\t') || c == 0x7f)
				return refuse(h, 400, "a control byte in a header field");
		}
		f->value = f->value.p ? http1_trim(f->value) : STR("");
	}
	return 0;
}

/* A line that begins with white space continues the one before (obs-fold); a CR stands only before a LF. */
static int check_lines(struct http1_head *h, const char *p, size_t n)
{
	if (memchr(p, '\0', n))
		return refuse(h, 400, "a NUL byte in the head");
	for (const char *cr = p; (cr = memchr(cr, '\r', n - (size_t)(cr - p))) != NULL; cr++) {
		size_t at = (size_t)(cr - p);
		if (at + 1 >= n || cr[1] != '\n')
			return refuse(h, 400, "a bare carriage return");
		if (at + 2 < n && (cr[2] == ' ' || cr[2] == '\t'))
			return refuse(h, 400, "a folded header line");
	}
	return 0;
}

int http1_walk(struct http1_head *h, llhttp_type_t type, const char *p, size_t n)
{
	static llhttp_settings_t settings;
	static bool ready;

	if (!ready) {
		llhttp_settings_init(&settings);
		settings.on_header_field = on_field;
		settings.on_header_value = on_value;
		settings.on_status = on_reason;
		settings.on_headers_complete = on_head;
		ready = true;
	}
	h->nfields = 0;
	h->reason = STR("");
	h->why = NULL;
	h->status = 400;
	if (check_lines(h, p, n) < 0)
		return -EBADMSG;
	llhttp_init(&h->parser, type, &settings);
	h->parser.data = h;
	llhttp_errno_t e = llhttp_execute(&h->parser, p, n);
	if (e != HPE_PAUSED) {
		refuse(h, 400, e == HPE_OK ? "an incomplete head" : llhttp_get_error_reason(&h->parser));
		return -EBADMSG;
	}
	/* Our end of the head and the parser's must be the same byte. */
	const char *end = llhttp_get_error_pos(&h->parser);
	if (end != p + n) {
		refuse(h, 400, "an empty line inside the head");
		return -EBADMSG;
	}
	return check_fields(h) < 0 ? -EBADMSG : 0;
}
