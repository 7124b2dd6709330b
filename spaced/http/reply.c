/* The answer to a request: head, fixed or chunked body, errors as JSON. Nothing here calls a handler or frees anything;
 * bytes go to the connection's out buffer and conn.c sends them. */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/json_quote.h"
#include "base/log.h"
#include "spaced/http/internal.h"

static const struct {
	int status;
	const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {507, "Insufficient Storage"},
};

static const char *reason_of(int status)
{
	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Status";
}

void http_date(time_t t, char out[32])
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm;

	if (!gmtime_r(&t, &tm) || tm.tm_year > 8099 || tm.tm_year < -1900) {
		t = 0;
		gmtime_r(&t, &tm);
	}
	snprintf(out, 32, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday, (unsigned)tm.tm_mday % 100,
		 months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

static bool field_name_ok(const char *s)
{
	if (!*s)
		return false;
	return s[strspn(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] == '\0';
}

static void set_header(struct http_req *r, const char *name, const char *value)
{
	/* Response splitting is a bug of ours, not something to repair at run time. */
	if (!field_name_ok(name) || strpbrk(value, "\r\n")) {
		log_error("header `%s` has a forbidden byte in its name or value", name);
		abort();
	}
	buf_addf(&r->headers, "%s: %s\r\n", name, value);
}

/* The handler may still speak. */
static bool live(const struct http_req *r)
{
	return !r->mute && !r->ended && !r->c->closing;
}

void http_set_header(struct http_req *r, const char *name, const char *value_fmt, ...)
{
	struct buf value = BUF_INIT;
	va_list ap;

	if (!live(r) || r->begun)
		return;
	va_start(ap, value_fmt);
	buf_addv(&value, value_fmt, ap);
	va_end(ap);
	set_header(r, name, value.data);
	buf_release(&value);
}

/* A body that still comes must be read before the next request: not when it is long, or of unknown length. And who asked
 * for a "100 Continue" and gets an answer instead may send the body or leave it out (RFC 9110 §10.1.1): what follows could
 * be either. */
static bool rest_is_known(const struct http_req *r)
{
	if (r->complete)
		return true;
	if (r->expect_continue && !r->received)
		return false;
	return r->has_length && r->length - r->received <= HTTP_DISCARD_MAX;
}

static void begin(struct http_req *r, int status, const char *type, ssize_t length)
{
	struct buf *out = &r->c->out;

	r->begun = true;
	r->no_body = r->is_head || status == 204 || status == 304;
	r->chunked = length < 0 && r->http11;
	r->sized = length >= 0;
	r->left = length >= 0 ? (uint64_t)length : 0;
	if (!rest_is_known(r) || (length < 0 && !r->http11) || r->c->s->draining)
		r->keep_alive = false;
	buf_addf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, reason_of(status), server_date(r->c->s));
	if (type) {
		if (strpbrk(type, "\r\n"))
			abort();
		buf_addf(out, "Content-Type: %s\r\n", type);
	}
	if (status != 204 && status != 304) {
		if (r->sized)
			buf_addf(out, "Content-Length: %zd\r\n", length);
		else if (r->chunked)
			buf_adds(out, "Transfer-Encoding: chunked\r\n");
	}
	if (!r->keep_alive)
		buf_adds(out, "Connection: close\r\n");
	if (r->headers.len)
		buf_add(out, r->headers.data, r->headers.len);
	buf_adds(out, "\r\n");
	conn_kick(r->c);
}

static void put(struct http_req *r, const void *p, size_t n)
{
	struct buf *out = &r->c->out;

	if (r->sized) {
		if (n > r->left) {
			log_error("an answer has more bytes than its Content-Length; the rest is dropped");
			n = (size_t)r->left;
		}
		r->left -= n;
	}
	if (n == 0 || r->no_body)
		return;
	if (r->chunked)
		buf_addf(out, "%zx\r\n", n);
	buf_add(out, p, n);
	if (r->chunked)
		buf_adds(out, "\r\n");
	if (http_pending(r) >= r->drain_level)
		r->above = true;
	conn_kick(r->c);
}

static void end(struct http_req *r)
{
	if (r->chunked && !r->no_body)
		buf_adds(&r->c->out, "0\r\n\r\n");
	if (r->sized && r->left && !r->no_body)
		r->keep_alive = false;
	r->ended = true;
	buf_clear(&r->body);
	conn_kick(r->c);
}

void http_begin(struct http_req *r, int status, const char *content_type, ssize_t length)
{
	if (live(r) && !r->begun)
		begin(r, status, content_type, length);
}

void http_write(struct http_req *r, const void *p, size_t n)
{
	if (live(r) && r->begun)
		put(r, p, n);
}

void http_end(struct http_req *r)
{
	if (live(r) && r->begun)
		end(r);
}

void http_abort(struct http_req *r)
{
	if (live(r))
		http_conn_close(r->c);
}

static void reply(struct http_req *r, int status, const char *type, const void *body, size_t n)
{
	begin(r, status, type, (ssize_t)n);
	put(r, body, n);
	end(r);
}

void http_reply(struct http_req *r, int status, const char *content_type, const void *body, size_t n)
{
	if (live(r) && !r->begun)
		reply(r, status, content_type, body, n);
}

/* The proxy's id of the request when it gave one, else a new one: a person can quote it, we can find it. */
static void set_request_id(struct http_req *r)
{
	struct str id;
	char fresh[33];
	char given[65];

	if (r->headers.data && strcasestr(r->headers.data, "X-Request-Id: "))
		return;
	if (http_header(r, "X-Request-Id", &id) && id.n && id.n < sizeof given) {
		memcpy(given, id.p, id.n);
		given[id.n] = '\0';
		if (field_name_ok(given)) {
			set_header(r, "X-Request-Id", given);
			return;
		}
	}
	io_random_hex(fresh, 16);
	set_header(r, "X-Request-Id", fresh);
}

static void reply_error(struct http_req *r, int status, const char *code, const char *msg)
{
	struct buf body = BUF_INIT, value = BUF_INIT;

	/* The message may quote outside bytes: as a header value only printable ASCII of it is sent. */
	for (const char *p = msg; *p && value.len < 500; p++)
		buf_addc(&value, *p >= ' ' && *p < 0x7f ? *p : '?');
	if (code)
		set_header(r, "X-Error-Code", code);
	set_header(r, "X-Error-Message", value.data ? value.data : "");
	set_request_id(r);
	buf_adds(&body, "{\"error\":");
	json_quote(&body, msg, strlen(msg));
	buf_addc(&body, '}');
	reply(r, status, "application/json; charset=utf-8", body.data, body.len);
	buf_release(&body);
	buf_release(&value);
}

void http_reply_error(struct http_req *r, int status, const char *code, const char *fmt, ...)
{
	struct buf msg = BUF_INIT;
	va_list ap;

	if (!live(r) || r->begun)
		return;
	va_start(ap, fmt);
	buf_addv(&msg, fmt, ap);
	va_end(ap);
	reply_error(r, status, code, msg.data);
	buf_release(&msg);
}

void reply_own_error(struct http_req *r, int status, const char *fmt, ...)
{
	struct buf msg = BUF_INIT;
	va_list ap;

	r->mute = true;
	if (r->c->closing)
		return;
	if (r->begun) { /* too late for a status: the broken answer says it */
		http_conn_close(r->c);
		return;
	}
	va_start(ap, fmt);
	buf_addv(&msg, fmt, ap);
	va_end(ap);
	r->keep_alive = false;
	buf_clear(&r->headers);
	if (status == 429)
		set_header(r, "Retry-After", "2");
	reply_error(r, status, NULL, msg.data);
	buf_release(&msg);
}

size_t http_pending(const struct http_req *r)
{
	const struct http_conn *c = r->c;

	if (c->closing)
		return 0;
	return c->out.len + (c->writing ? c->flight.len : 0);
}

void http_drain_level(struct http_req *r, size_t bytes)
{
	r->drain_level = bytes;
}

void http_on_drain(struct http_req *r, void (*cb)(struct http_req *r, void *ctx), void *ctx)
{
	r->drain_cb = cb;
	r->drain_ctx = ctx;
}

bool http_begun(const struct http_req *r)
{
	return r->begun;
}
