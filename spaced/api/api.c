/* The dispatcher: finds the route, says who calls, finds the Space, checks the right, reads the JSON body, calls the
 * handler. And the ways to answer. Called by the control role for what git did not take. */
#include "spaced/api/api.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/api/api_int.h"
#include "spaced/superior.h"

struct api *api_new(uv_loop_t *loop, const struct config *config, const struct api_parts *parts)
{
	struct api *a = xcalloc(1, sizeof(*a));

	if (sodium_init() < 0) {
		log_error("libsodium cannot start");
		abort();
	}
	a->loop = loop;
	a->config = config;
	a->parts = *parts;
	a->repos = xasprintf("%s/%s", config->state, STATE_REPOS);
	a->started = io_wall_ms();
	limiter_init(&a->limiter);
	return a;
}

void api_close(struct api *a)
{
	logs_close_all(a);
	exec_close_all(a);
}

void api_free(struct api *a)
{
	if (!a)
		return;
	free(a->repos);
	free(a);
}

/* ---- answers ---- */

void call_text(struct call *c, int status, const char *type, struct str body)
{
	http_set_header(c->r, "X-Content-Type-Options", "nosniff");
	http_reply(c->r, status, type, body.p, body.n);
}

void call_json(struct call *c, int status, json_t *j)
{
	cleanup_free char *text = json_dumps(j, JSON_COMPACT);

	json_decref(j);
	http_set_header(c->r, "Cache-Control", "no-store");
	call_text(c, status, "application/json; charset=utf-8", text ? STRZ(text) : STR("null"));
}

bool call_wants_html(const struct call *c)
{
	struct str accept, path = http_path(c->r);

	/* The API answers programs, whatever they accept. */
	if (path.n >= 5 && !memcmp(path.p, "/api/", 5))
		return false;
	return http_header(c->r, "Accept", &accept) && memmem(accept.p, accept.n, "text/html", 9);
}

void call_error(struct call *c, int status, const char *code, const char *fmt, ...)
{
	cleanup_buf struct buf msg = BUF_INIT, html = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&msg, fmt, ap);
	va_end(ap);
	if (!call_wants_html(c)) {
		http_reply_error(c->r, status, code, "%s", msg.data);
		return;
	}
	buf_adds(&html, "<p>");
	html_escape(&html, msg.data);
	buf_adds(&html, "</p><p><a href=\"/\">All Spaces</a></p>");
	page_send(c, status, status == 404 ? "Not found" : "Sorry", html.data);
}

void call_fail(struct call *c, const struct err *err)
{
	static const struct {
		int code, status;
	} map[] = {{ENOENT, 404}, {EEXIST, 409}, {EBUSY, 409},	{EINVAL, 400},	  {EACCES, 403},
		   {EPERM, 403},  {EDQUOT, 403}, {ENOSPC, 507}, {EAGAIN, 503},	  {ENOTSUP, 501},
		   {ESRCH, 409},  {ECHILD, 409}, {E2BIG, 400},	{ETIMEDOUT, 504}, {ECONNRESET, 503}};

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (map[i].code == err->code) {
			call_error(c, map[i].status, NULL, "%s", err->msg);
			return;
		}
	log_error("api: %s", err->msg);
	call_error(c, 500, NULL, "%s", err->msg);
}

/* People in a browser may say who they are; programs send a token. */
static void ask(struct call *c)
{
	http_set_header(c->r, "WWW-Authenticate", "Basic realm=\"Spaced: any user name, a token as password\"");
}

void call_no_space(struct call *c)
{
	if (c->known) {
		call_error(c, 404, "RepoNotFound", "Repository not found");
		return;
	}
	if (call_wants_html(c))
		ask(c);
	call_error(c, 401, "RepoNotFound", "Repository not found, or it is private: a token of its owner is needed");
}

/* ---- rights ---- */

bool user_owns(const struct user *u, const struct space *sp)
{
	return u->admin || !strcmp(u->id, sp->owner_id);
}

static bool owns(const struct call *c, const struct space *sp)
{
	return c->known && user_owns(&c->me, sp);
}

bool call_may_read(const struct call *c, const struct space *sp)
{
	return sp->visibility == SPACE_PUBLIC || owns(c, sp);
}

bool call_may_write(const struct call *c, const struct space *sp)
{
	return owns(c, sp);
}

/* ---- the query ---- */

bool call_query(struct call *c, const char *key, struct buf *out)
{
	buf_clear(out);
	if (http_query_get(c->r, key, out)) {
		buf_reserve(out, 0); /* a string, also when empty */
		out->data[out->len] = '\0';
		return true;
	}
	buf_clear(out);
	return false;
}

bool call_flag(struct call *c, const char *key)
{
	cleanup_buf struct buf v = BUF_INIT;

	return call_query(c, key, &v) && (!v.len || !strcmp(v.data, "1") || !strcasecmp(v.data, "true"));
}

char *call_endpoint(const struct call *c)
{
	struct str host = http_host(c->r), proto;

	/* Clients refuse URLs of another host than the one they asked (hub-api §4). */
	if (http_peer_uid(c->r) != (uid_t)-1 || !host.n || host.n > 260)
		return xstrdup(c->a->config->public_url);
	for (size_t i = 0; i < host.n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]", host.p[i]))
			return xstrdup(c->a->config->public_url);
	if (!http_header(c->r, "X-Forwarded-Proto", &proto) || !str_eq(proto, "https"))
		proto = STR("http");
	return xasprintf("%.*s://%.*s", (int)proto.n, proto.p, (int)host.n, host.p);
}

/* ---- dispatch ---- */

static void on_close(struct http_req *r, void *ctx)
{
	struct call *c = ctx;

	(void)r;
	logs_stream_free(c->stream);
	exec_call_gone(c->exec);
	usage_call_gone(c->usage);
	if (c->asked)
		superior_forget(c->asked, c);
	metrics_scrape_free(c->scrape);
	access_reader_free(c->reader);
	user_release(&c->me);
	space_release(&c->space);
	for (size_t i = 0; i < API_VARS; i++)
		free(c->vars[i]);
	json_decref(c->body);
	free(c);
}

bool call_find_space(struct call *c, bool write)
{
	struct err err = ERR_INIT;

	if (store_space_by_name(c->a->parts.store, c->vars[0], c->vars[1], &c->space, &err) < 0) {
		if (err.code == ENOENT)
			call_no_space(c);
		else
			call_fail(c, &err);
		return false;
	}
	if (c->space.stage == STAGE_DELETING || !call_may_read(c, &c->space)) {
		call_no_space(c);
		return false;
	}
	if (!write || call_may_write(c, &c->space))
		return true;
	if (!c->known && call_wants_html(c))
		ask(c);
	if (c->known)
		call_error(c, 403, NULL, "only the owner of %s/%s may do this", c->space.owner, c->space.name);
	else
		call_error(c, 401, NULL, "a token of the owner of %s/%s is needed", c->space.owner, c->space.name);
	return false;
}

bool call_may_follow(struct call *c, unsigned taken, unsigned own, unsigned places)
{
	bool greedy = !c->me.admin && own >= places / 4;

	if (!greedy && taken < (c->me.admin ? 2 * places : places))
		return true;
	http_set_header(c->r, "Retry-After", "5");
	if (greedy)
		call_error(c, 429, NULL, "you read this kind of log %u times already", own);
	else
		call_error(c, 503, NULL, "this kind of log is being read by too many");
	return false;
}

static bool permitted(struct call *c)
{
	switch (c->row->access) {
	case ACCESS_OPEN:
		return true;
	case ACCESS_USER:
		if (c->known)
			return true;
		call_error(c, 401, NULL, "Invalid user token: a token is needed");
		return false;
	case ACCESS_ADMIN:
		if (c->known && c->me.admin)
			return true;
		call_error(c, c->known ? 403 : 401, NULL, "only an admin may do this");
		return false;
	case ACCESS_SPACE_READ:
		return call_find_space(c, false);
	case ACCESS_SPACE_WRITE:
		return call_find_space(c, true);
	}
	return false;
}

static void on_body(struct http_req *r, struct str body, void *ctx)
{
	struct call *c = ctx;
	json_error_t why;

	(void)r;
	if (body.n) {
		c->body = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &why);
		if (!json_is_object(c->body)) {
			call_error(c, 400, NULL, "the request body must be a JSON object%s%s", c->body ? "" : ": ",
				   c->body ? "" : why.text);
			return;
		}
	}
	c->row->handle(c);
}

static void cors(struct http_req *r)
{
	http_set_header(r, "Access-Control-Allow-Origin", "*");
	http_set_header(
	    r, "Access-Control-Expose-Headers",
	    "X-Repo-Commit, X-Request-Id, X-Error-Code, X-Error-Message, X-Total-Count, ETag, Link, Accept-Ranges,"
	    " Content-Range, X-Linked-Size, X-Linked-ETag, X-Xet-Hash");
}

static void preflight(struct http_req *r)
{
	http_set_header(r, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
	http_set_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, Range, X-Request-Id");
	http_set_header(r, "Access-Control-Max-Age", "86400");
	http_reply(r, 204, NULL, NULL, 0);
}

/* The row for this path and method; else which methods there are. */
static const struct route_row *find_row(struct call *c, struct buf *allow)
{
	struct str path = http_path(c->r), method = http_method(c->r);

	for (const struct route_row *row = route_rows; row->method; row++) {
		if (!route_match(row->pattern, path, c->vars))
			continue;
		if (str_eq(method, row->method) || (str_eq(method, "HEAD") && !strcmp(row->method, "GET")))
			return row;
		buf_addf(allow, "%s%s", allow->len ? ", " : "", row->method);
		for (size_t i = 0; i < API_VARS; i++) {
			free(c->vars[i]);
			c->vars[i] = NULL;
		}
	}
	return NULL;
}

void api_handle(struct api *a, struct http_req *r)
{
	struct call *c = xcalloc(1, sizeof(*c));
	cleanup_buf struct buf allow = BUF_INIT;
	struct str path = http_path(r);
	bool api = path.n >= 5 && !memcmp(path.p, "/api/", 5);

	c->a = a;
	c->r = r;
	http_on_close(r, on_close, c);
	if (api)
		cors(r);
	c->row = find_row(c, &allow);
	if (!c->row && api && str_eq(http_method(r), "OPTIONS")) {
		preflight(r);
	} else if (!c->row && allow.len) {
		http_set_header(r, "Allow", "%s", allow.data);
		call_error(c, 405, NULL, "this path answers only %s", allow.data);
	} else if (!c->row) {
		call_error(c, 404, NULL, "there is nothing at this address");
	} else if (call_authenticate(c) && permitted(c)) {
		if (c->row->body)
			http_collect(r, API_BODY_MAX, on_body, c);
		else
			c->row->handle(c);
	}
}
