/* From bytes to a request: the llhttp callbacks. They only record; handlers are called by conn.c when the parser has
 * returned, so that no handler ever runs inside it. Works with llhttp 8.1 (strict) and 9. */
#include <string.h>

#include "spaced/http/internal.h"
#include "spaced/http/url.h"

static struct http_conn *conn_of(llhttp_t *p)
{
	return p->data;
}

static int on_message_begin(llhttp_t *p)
{
	struct http_conn *c = conn_of(p);

	c->in_message = true;
	c->active = uv_now(c->s->loop); /* a head has limits_.head_ms from its first byte */
	c->discarded = c->trailer = 0;
	c->req = xcalloc(1, sizeof *c->req);
	c->req->c = c;
	c->req->drain_level = HTTP_DRAIN_LEVEL;
	c->req->fields = xcalloc(c->s->limits.fields, sizeof *c->req->fields);
	return 0;
}

/* False when the head grows beyond its limit. */
static bool add_head(struct http_req *r, const char *at, size_t n)
{
	if (r->head.len + n > r->c->s->limits.head_bytes) {
		r->bad_head = 431;
		return false;
	}
	buf_add(&r->head, at, n);
	return true;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
	struct http_req *r = conn_of(p)->req;

	if (!add_head(r, at, n)) {
		r->bad_head = 414;
		return -1;
	}
	r->target_len = (uint32_t)r->head.len;
	return 0;
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
	struct http_conn *c = conn_of(p);
	struct http_req *r = c->req;

	if (!r || r->head_done) { /* a trailer field */
		c->trailer += n;
		return c->trailer > HTTP_TRAILER_MAX ? -1 : 0;
	}
	if (r->nfields == 0 || r->in_value) {
		if (r->nfields == c->s->limits.fields) {
			r->bad_head = 431;
			return -1;
		}
		r->fields[r->nfields++].name = (uint32_t)r->head.len;
		r->in_value = false;
	}
	r->fields[r->nfields - 1].name_len += (uint32_t)n;
	return add_head(r, at, n) ? 0 : -1;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
	struct http_conn *c = conn_of(p);
	struct http_req *r = c->req;

	if (!r || r->head_done) {
		c->trailer += n;
		return c->trailer > HTTP_TRAILER_MAX ? -1 : 0;
	}
	struct field *f = &r->fields[r->nfields - 1];
	if (!r->in_value) {
		f->value = (uint32_t)r->head.len;
		r->in_value = true;
	}
	f->value_len += (uint32_t)n;
	return add_head(r, at, n) ? 0 : -1;
}

/* origin-form, or the path of absolute-form (RFC 9112 §3.2.2); "*" stays as it is. */
static bool split_target(struct http_req *r)
{
	struct str t = {r->head.data, r->target_len};

	if (t.n == 0)
		return false;
	if (t.p[0] != '/' && !str_eq(t, "*")) {
		const char *authority = memmem(t.p, t.n, "://", 3);
		if (!authority)
			return false;
		authority += 3;
		t.n -= (size_t)(authority - t.p);
		t.p = authority;
		size_t i = 0;
		while (i < t.n && t.p[i] != '/' && t.p[i] != '?')
			i++;
		t.p += i;
		t.n -= i;
	}
	const char *mark = t.n ? memchr(t.p, '?', t.n) : NULL;
	r->path = (struct str){t.p, mark ? (size_t)(mark - t.p) : t.n};
	r->query = mark ? (struct str){mark + 1, t.n - r->path.n - 1} : STR("");
	if (r->path.n == 0)
		r->path = STR("/");
	return true;
}

static int on_headers_complete(llhttp_t *p)
{
	struct http_conn *c = conn_of(p);
	struct http_req *r = c->req;
	struct str expect;

	r->method = STRZ(llhttp_method_name((llhttp_method_t)p->method));
	r->is_head = str_eq(r->method, "HEAD");
	r->http11 = p->http_major == 1 && p->http_minor >= 1;
	r->has_length = p->flags & F_CONTENT_LENGTH;
	r->length = r->has_length ? p->content_length : 0;
	r->keep_alive = r->http11 && llhttp_should_keep_alive(p);
	r->head_done = true;
	/* The parser follows no Upgrade (RFC 9110 §7.8); a handler may leave HTTP by http_hand_over(). */
	p->upgrade = 0;
	if (str_eq(r->method, "CONNECT"))
		r->bad_head = 405;
	else if (!split_target(r))
		r->bad_head = 400;
	else if (http_header(r, "Expect", &expect)) {
		r->expect_continue = r->http11 && str_ieq(expect, "100-continue");
		if (!r->expect_continue && r->http11)
			r->bad_head = 417;
	}
	return r->bad_head ? -1 : 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
	struct http_conn *c = conn_of(p);
	struct http_req *r = c->req;

	if (!r) {
		c->discarded += n;
		return 0;
	}
	r->received += n;
	if (!r->ended)
		buf_add(&r->body, at, n);
	else
		c->discarded += n;
	return 0;
}

static int on_message_complete(llhttp_t *p)
{
	struct http_conn *c = conn_of(p);

	c->complete = true;
	if (c->req)
		c->req->complete = true;
	return HPE_PAUSED;
}

void parse_settings(llhttp_settings_t *settings)
{
	llhttp_settings_init(settings);
	settings->on_message_begin = on_message_begin;
	settings->on_url = on_url;
	settings->on_header_field = on_header_field;
	settings->on_header_value = on_header_value;
	settings->on_headers_complete = on_headers_complete;
	settings->on_body = on_body;
	settings->on_message_complete = on_message_complete;
}

void parse_reset(struct http_conn *c)
{
	llhttp_init(&c->parser, HTTP_REQUEST, &c->s->settings);
	c->parser.data = c;
}

bool parse_bytes(struct http_conn *c, const char *p, size_t n, size_t *used, int *status, const char **why)
{
	enum llhttp_errno e = llhttp_execute(&c->parser, p, n);

	*used = n;
	if (e == HPE_OK)
		return true;
	if (e == HPE_PAUSED && c->complete) {
		*used = (size_t)(llhttp_get_error_pos(&c->parser) - p);
		return true;
	}
	*status = c->req && c->req->bad_head ? c->req->bad_head : 400;
	*why = *status == 431	? "request header fields too large"
	       : *status == 414 ? "request target too long"
	       : *status == 405 ? "CONNECT is not allowed"
	       : *status == 417 ? "only Expect: 100-continue is known"
				: "malformed HTTP request";
	return false;
}
