/* Requests: the request line, the judgement over all fields, and the head that goes to the app. See http1.h. */
#include <errno.h>

#include "proxy/http1_impl.h"

#define NOMINATED_MAX 32

static const struct {
	const char *name;
	enum http1_method method; /* 0: known, refused */
} methods[] = {
    {"GET", HTTP1_GET},		{"HEAD", HTTP1_HEAD},	{"POST", HTTP1_POST},
    {"PUT", HTTP1_PUT},		{"PATCH", HTTP1_PATCH}, {"DELETE", HTTP1_DELETE},
    {"OPTIONS", HTTP1_OPTIONS}, {"CONNECT", 0},		{"TRACE", 0},
};

static int refuse(struct http1_request *r, int status, const char *why)
{
	r->why = why;
	return status;
}

static int read_method(struct http1_request *r, struct str name)
{
	if (name.n == 0 || name.n > 32)
		return refuse(r, 400, "no method");
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
		if (!str_eq(name, methods[i].name))
			continue;
		r->method = methods[i].method;
		r->method_name = name;
		return r->method ? 0 : refuse(r, 405, "this method is not served here");
	}
	return http1_is_token(name) ? refuse(r, 501, "unknown method") : refuse(r, 400, "a method that is no token");
}

static int read_version(struct http1_request *r, struct str v)
{
	if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || v.p[5] < '0' || v.p[5] > '9' || v.p[6] != '.' || v.p[7] < '0' ||
	    v.p[7] > '9')
		return refuse(r, 400, "malformed HTTP version");
	if (v.p[5] != '1' || v.p[7] > '1')
		return refuse(r, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
	r->minor = (uint8_t)(v.p[7] - '0');
	return 0;
}

/* http://authority/path: RFC 9112 3.2.2. Leaves the origin-form in target, the authority in r->authority. */
static int read_absolute(struct http1_request *r, struct str t)
{
	size_t scheme = t.n >= 7 && strncasecmp(t.p, "http://", 7) == 0	   ? 7
			: t.n >= 8 && strncasecmp(t.p, "https://", 8) == 0 ? 8
									   : 0;
	if (!scheme)
		return refuse(r, 400, "a request target in no known form");
	t.p += scheme;
	t.n -= scheme;
	size_t n = 0;
	while (n < t.n && t.p[n] != '/' && t.p[n] != '?')
		n++;
	r->authority = (struct str){t.p, n};
	if (n < t.n && t.p[n] == '?')
		return refuse(r, 400, "a request target without a path");
	r->target = n < t.n ? (struct str){t.p + n, t.n - n} : STR("/");
	return 0;
}

static int read_target(struct http1_request *r, struct str t, const struct http1_limits *limits)
{
	if (t.n > limits->url_bytes)
		return refuse(r, 414, "the address is too long");
	if (t.n == 0)
		return refuse(r, 400, "two spaces in the request line");
	for (size_t i = 0; i < t.n; i++)
		if ((unsigned char)t.p[i] <= 0x20 || (unsigned char)t.p[i] >= 0x7f || t.p[i] == '#')
			return refuse(r, 400, "a byte that may not stand in a request target");
	r->authority = (struct str){NULL, 0};
	r->target = t;
	if (t.p[0] == '/')
		return 0;
	if (str_eq(t, "*"))
		return r->method == HTTP1_OPTIONS ? 0 : refuse(r, 400, "the target * is for OPTIONS only");
	return read_absolute(r, t);
}

/* RFC 9112 3: method SP target SP version CRLF, with exactly one space at each place. */
static int read_line(struct http1_request *r, struct str line, const struct http1_limits *limits)
{
	int status;
	const char *sp = memchr(line.p, ' ', line.n);

	if (str_eq(line, "PRI * HTTP/2.0"))
		return refuse(r, 505, "HTTP/2 is not spoken on this port");
	if (!sp)
		return refuse(r, 400, "malformed request line");
	struct str name = {line.p, (size_t)(sp - line.p)};
	struct str rest = {sp + 1, line.n - name.n - 1};
	const char *sp2 = memchr(rest.p, ' ', rest.n);
	/* An over-long target first: its tail may be missing. */
	if ((sp2 ? (size_t)(sp2 - rest.p) : rest.n) > limits->url_bytes)
		return refuse(r, 414, "the address is too long");
	if (!sp2)
		return refuse(r, 400, "HTTP/0.9 is not spoken here");
	struct str target = {rest.p, (size_t)(sp2 - rest.p)};
	struct str version = {sp2 + 1, rest.n - target.n - 1};
	if ((status = read_version(r, version)) || (status = read_method(r, name)))
		return status;
	return read_target(r, target, limits);
}

/* What the fields of one request add up to, while they are read. */
struct judgement {
	struct str host, length, coding, expect, upgrade, key, version;
	unsigned hosts, lengths, codings, expects, upgrades, keys, versions;
	struct str tokens[NOMINATED_MAX]; /* of Connection */
	size_t ntokens;
	bool close, keep_alive, upgrade_token;
};

static int read_connection(struct http1_request *r, struct judgement *j, struct str value)
{
	/* Fields that an intermediary must not be talked out of (abuse of hop-by-hop, 2019). */
	static const char *const kept[] = {"host",	    "content-length", "transfer-encoding", "cookie",
					   "authorization", "content-type",   "x-request-id"};
	struct str t;

	while (http1_list_next(&value, &t)) {
		if (!http1_is_token(t))
			return refuse(r, 400, "malformed Connection");
		if (str_ieq(t, "close"))
			j->close = true;
		else if (str_ieq(t, "keep-alive"))
			j->keep_alive = true;
		else if (str_ieq(t, "upgrade"))
			j->upgrade_token = true;
		for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
			if (str_ieq(t, kept[i]))
				return refuse(r, 400, "Connection names a field that may not be dropped");
		if (http1_known(t) >= FIELD_FORWARDING)
			return refuse(r, 400, "Connection names a field that may not be dropped");
		if (j->ntokens == NOMINATED_MAX)
			return refuse(r, 400, "too many options in Connection");
		j->tokens[j->ntokens++] = t;
	}
	return 0;
}

/* A proxy adds its own at the end: as the last element, or as the last field. */
static void claim(struct http1_claims *c, struct str value)
{
	if (c->n == HTTP1_CLAIMS_MAX)
		memmove(c->values, c->values + 1, --c->n * sizeof *c->values);
	c->values[c->n++] = value;
}

static inline void once(struct str *to, unsigned *count, struct str value)
{
	*to = value;
	++*count;
}

/* Sorts the fields into what has a meaning here and what is passed on. */
static int sort_fields(struct http1_request *r, size_t n, struct judgement *j)
{
	size_t out = 0;
	int status;

	for (size_t i = 0; i < n; i++) {
		struct http1_field f = r->fields[i];
		enum known_field id = http1_known(f.name);
		if (id == FIELD_HOST)
			once(&j->host, &j->hosts, f.value);
		else if (id == FIELD_CONTENT_LENGTH)
			once(&j->length, &j->lengths, f.value);
		else if (id == FIELD_TRANSFER_ENCODING)
			once(&j->coding, &j->codings, f.value);
		else if (id == FIELD_EXPECT)
			once(&j->expect, &j->expects, f.value);
		else if (id == FIELD_UPGRADE)
			once(&j->upgrade, &j->upgrades, f.value);
		else if (id == FIELD_WEBSOCKET_KEY)
			once(&j->key, &j->keys, f.value);
		else if (id == FIELD_WEBSOCKET_VERSION)
			once(&j->version, &j->versions, f.value);
		else if (id == FIELD_ACCEPT && !r->accept.p)
			r->accept = f.value;
		else if (id == FIELD_USER_AGENT && !r->user_agent.p)
			r->user_agent = f.value;
		else if (id == FIELD_REQUEST_ID && f.value.n <= HTTP1_REQUEST_ID_MAX && http1_is_token(f.value))
			r->request_id = f.value;
		else if (id == FIELD_FORWARDED_FOR)
			claim(&r->forwarded_for, f.value);
		else if (id == FIELD_FORWARDED_PROTO)
			claim(&r->forwarded_proto, f.value);
		else if (id == FIELD_CONNECTION && (status = read_connection(r, j, f.value)))
			return status;
		/* CGI and WSGI map '_' and '-' together: Content_Length would become a second Content-Length. */
		if (id > FIELD_DROPPED || memchr(f.name.p, '_', f.name.n))
			continue;
		r->fields[out++] = f;
	}
	r->nfields = out;
	return 0;
}

static void drop_nominated(struct http1_request *r, const struct judgement *j)
{
	size_t out = 0;

	if (j->ntokens == 0)
		return;
	for (size_t i = 0; i < r->nfields; i++)
		if (!http1_nominated(j->tokens, j->ntokens, r->fields[i].name))
			r->fields[out++] = r->fields[i];
	r->nfields = out;
}

/* RFC 9112 3.2: exactly one Host, and an absolute target must say the same. */
static int judge_host(struct http1_request *r, const struct judgement *j)
{
	char named[ROUTE_HOST_MAX + 1];

	if (j->hosts != 1)
		return refuse(r, 400, j->hosts ? "more than one Host" : "no Host");
	if (!route_canonical_host(j->host, r->host))
		return refuse(r, 400, "malformed Host");
	if (!r->authority.p) {
		r->authority = j->host;
		return 0;
	}
	if (!route_canonical_host(r->authority, named))
		return refuse(r, 400, "malformed authority in the request target");
	if (strcmp(named, r->host) != 0 || !http1_same(r->authority, j->host))
		return refuse(r, 400, "the request target and Host disagree");
	return 0;
}

/* RFC 9112 6: how long the body is, said once and one way. */
static int judge_framing(struct http1_request *r, const struct judgement *j)
{
	r->body = HTTP1_NO_BODY;
	r->length = 0;
	r->has_length = false;
	if (j->codings && j->lengths)
		return refuse(r, 400, "both Content-Length and Transfer-Encoding");
	if (j->codings) {
		if (j->codings > 1 || !str_ieq(j->coding, "chunked"))
			return refuse(r, 400, "a Transfer-Encoding other than one chunked");
		if (r->minor == 0)
			return refuse(r, 400, "Transfer-Encoding in HTTP/1.0");
		r->body = HTTP1_CHUNKED;
	} else if (j->lengths) {
		if (j->lengths > 1)
			return refuse(r, 400, "more than one Content-Length");
		if (!http1_length(j->length, &r->length))
			return refuse(r, 400, "malformed Content-Length");
		r->has_length = true;
		if (r->length)
			r->body = HTTP1_LENGTH;
	}
	return 0;
}

static int judge_expect(struct http1_request *r, const struct judgement *j)
{
	r->expect_continue = false;
	if (j->expects == 0 || r->minor == 0)
		return 0;
	if (j->expects > 1 || !str_ieq(j->expect, "100-continue"))
		return refuse(r, 417, "an expectation that is not met here");
	r->expect_continue = r->body != HTTP1_NO_BODY;
	return 0;
}

static bool base64_key(struct str s)
{
	if (s.n != 24 || s.p[22] != '=' || s.p[23] != '=')
		return false;
	for (size_t i = 0; i < 22; i++) {
		char c = s.p[i];
		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
		      c == '/'))
			return false;
	}
	return true;
}

/* RFC 6455 4.2.1. Other upgrades (h2c above all) are not offered to the app: the request goes on as a plain one. */
static int judge_upgrade(struct http1_request *r, const struct judgement *j)
{
	r->websocket = false;
	if (j->upgrades != 1 || !j->upgrade_token || r->minor == 0 || !str_ieq(j->upgrade, "websocket"))
		return 0;
	if (r->method != HTTP1_GET || r->body != HTTP1_NO_BODY)
		return refuse(r, 400, "a WebSocket handshake is a GET without a body");
	if (j->keys != 1 || !base64_key(j->key) || j->versions != 1)
		return refuse(r, 400, "malformed WebSocket handshake");
	r->websocket = true;
	return 0;
}

int http1_parse_request(const char *p, size_t n, const struct http1_limits *limits, struct http1_request *r)
{
	struct http1_head h;
	struct judgement j = {0};
	int status;

	r->why = NULL;
	r->nfields = 0;
	r->accept = r->user_agent = r->request_id = (struct str){NULL, 0};
	r->forwarded_for.n = r->forwarded_proto.n = 0;
	r->keep_alive = false;
	if (n >= 2 && p[0] == '\r' && p[1] == '\n')
		p += 2, n -= 2; /* RFC 9112 2.2: one empty line before a request */
	const char *eol = memchr(p, '\n', n);
	size_t line = eol ? (size_t)(eol - p) : n;
	if (line && p[line - 1] == '\r')
		line--;
	if ((status = read_line(r, (struct str){p, line}, limits)))
		return status;
	if (n > limits->head_bytes)
		return refuse(r, 431, "the head of the request is too long");
	h.fields = r->fields;
	h.max = limits->fields < HTTP1_FIELDS_MAX ? limits->fields : HTTP1_FIELDS_MAX;
	if (http1_walk(&h, HTTP_REQUEST, p, n) < 0)
		return refuse(r, h.status, h.why);
	if ((status = sort_fields(r, h.nfields, &j)) || (status = judge_host(r, &j)) ||
	    (status = judge_framing(r, &j)) || (status = judge_expect(r, &j)) || (status = judge_upgrade(r, &j)))
		return status;
	drop_nominated(r, &j);
	r->keep_alive = !j.close && (r->minor == 1 || j.keep_alive);
	return 0;
}

static unsigned authority_port(struct str authority, unsigned fallback)
{
	unsigned port = 0;
	size_t i = authority.n;

	while (i && authority.p[i - 1] >= '0' && authority.p[i - 1] <= '9')
		i--;
	if (i == 0 || i == authority.n || authority.p[i - 1] != ':')
		return fallback;
	for (; i < authority.n; i++)
		port = port * 10 + (unsigned)(authority.p[i] - '0');
	return port;
}

static void add_field(struct buf *out, const char *name, struct str value)
{
	buf_adds(out, name);
	http1_add(out, value);
	buf_add(out, "\r\n", 2);
}

static void write_forwarding(const struct http1_request *r, const struct http1_forward *f, struct buf *out)
{
	bool v6 = memchr(f->client.p, ':', f->client.n) != NULL;
	char port[16];

	add_field(out, "X-Forwarded-For: ", f->client);
	add_field(out, "X-Real-IP: ", f->client);
	add_field(out, "X-Forwarded-Proto: ", STRZ(f->proto));
	add_field(out, "X-Forwarded-Host: ", r->authority);
	snprintf(port, sizeof port, "%u", authority_port(r->authority, f->port));
	add_field(out, "X-Forwarded-Port: ", STRZ(port));
	/* RFC 7239: an IPv6 address and a host with a port need quotes. */
	buf_adds(out, v6 ? "Forwarded: for=\"[" : "Forwarded: for=");
	http1_add(out, f->client);
	buf_adds(out, v6 ? "]\";host=\"" : ";host=\"");
	http1_add(out, r->authority);
	buf_adds(out, "\";proto=");
	add_field(out, f->proto, STR(""));
	add_field(out, "X-Request-Id: ", f->request_id);
	if (f->site[0])
		add_field(out, "X-Spaced-Site: ", STRZ(f->site));
}

void http1_write_request(const struct http1_request *r, const struct http1_forward *f, struct buf *out)
{
	http1_add(out, r->method_name);
	buf_addc(out, ' ');
	http1_add(out, r->target);
	buf_adds(out, " HTTP/1.1\r\n");
	add_field(out, "Host: ", r->authority);
	for (size_t i = 0; i < r->nfields; i++) {
		http1_add(out, r->fields[i].name);
		buf_add(out, ": ", 2);
		http1_add(out, r->fields[i].value);
		buf_add(out, "\r\n", 2);
	}
	if (r->websocket)
		buf_adds(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	if (r->body == HTTP1_CHUNKED)
		buf_adds(out, "Transfer-Encoding: chunked\r\n");
	else if (r->has_length)
		buf_addf(out, "Content-Length: %llu\r\n", (unsigned long long)r->length);
	write_forwarding(r, f, out);
	buf_add(out, "\r\n", 2);
}
