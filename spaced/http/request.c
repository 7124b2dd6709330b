/* What a handler reads from a request: head, query, body. */
#include <string.h>

#include "base/log.h"
#include "spaced/http/internal.h"
#include "spaced/http/url.h"

void req_free(struct http_req *r)
{
	buf_release(&r->head);
	buf_release(&r->body);
	buf_release(&r->headers);
	buf_release(&r->collect.data);
	free(r->fields);
	free(r);
}

struct str http_method(const struct http_req *r)
{
	return r->method;
}

struct str http_path(const struct http_req *r)
{
	return r->path;
}

struct str http_query(const struct http_req *r)
{
	return r->query;
}

bool http_header(const struct http_req *r, const char *name, struct str *out)
{
	for (size_t i = 0; i < r->nfields; i++) {
		const struct field *f = &r->fields[i];
		if (!str_ieq((struct str){r->head.data + f->name, f->name_len}, name))
			continue;
		*out = f->value_len ? (struct str){r->head.data + f->value, f->value_len} : STR("");
		while (out->n && (out->p[out->n - 1] == ' ' || out->p[out->n - 1] == '\t'))
			out->n--;
		return true;
	}
	return false;
}

bool http_query_get(const struct http_req *r, const char *key, struct buf *out)
{
	return url_query_get(r->query, key, out);
}

uid_t http_peer_uid(const struct http_req *r)
{
	return r->c->admin ? r->c->uid : (uid_t)-1;
}

struct str http_client(const struct http_req *r)
{
	struct str s;

	if (r->c->admin)
		return STR("");
	if (http_header(r, "X-Real-IP", &s))
		return s;
	if (!http_header(r, "X-Forwarded-For", &s))
		return STR("");
	const char *comma = memchr(s.p, ',', s.n);
	if (comma)
		s.n = (size_t)(comma - s.p);
	return s;
}

struct str http_host(const struct http_req *r)
{
	struct str s;

	if (http_header(r, "X-Forwarded-Host", &s) || http_header(r, "Host", &s))
		return s;
	return STR("");
}

void http_on_body(struct http_req *r, struct http_body_cb cb, void *ctx)
{
	r->body_cb = cb;
	r->body_ctx = ctx;
}

void http_pause(struct http_req *r)
{
	r->paused = true;
}

void http_resume(struct http_req *r)
{
	r->paused = false;
	conn_kick(r->c);
}

static void too_large(struct http_req *r)
{
	reply_own_error(r, 413, "the request body is larger than %zu bytes", r->collect.max);
}

static void collect_data(struct http_req *r, const char *p, size_t n, void *ctx)
{
	struct buf *data = &r->collect.data;

	(void)ctx;
	if (n > r->collect.max - data->len)
		too_large(r);
	else
		buf_add(data, p, n);
}

static void collect_end(struct http_req *r, void *ctx)
{
	struct buf *data = &r->collect.data;

	(void)ctx;
	buf_reserve(data, 0);
	data->data[data->len] = '\0';
	r->collect.done(r, (struct str){data->data, data->len}, r->collect.ctx);
}

void http_collect(struct http_req *r, size_t max, void (*done)(struct http_req *r, struct str body, void *ctx),
		  void *ctx)
{
	r->collect.max = max;
	r->collect.done = done;
	r->collect.ctx = ctx;
	http_on_body(r, (struct http_body_cb){collect_data, collect_end}, NULL);
	if (r->has_length && r->length > max)
		too_large(r);
}

void http_on_close(struct http_req *r, void (*cb)(struct http_req *r, void *ctx), void *ctx)
{
	r->close_cb = cb;
	r->close_ctx = ctx;
}
