/* Who may open a private Space in a browser or by a program: visibility itself, the tickets for it, signing in at the apex, and the
 * answers for the proxies' gate. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "proxy/credentials.h"
#include "spaced/api/api_int.h"
#include "spaced/domain.h"
#include "spaced/http/url.h"

#define JWT_S 3600    /* a client keeps it while it talks to the app */
#define REDIRECT_S 60 /* in an address for one redirect */
#define PATH_MAX_BYTES 2048

/* ---- for the proxies ---- */

int api_check_token(struct api *a, const char *token, struct str client, struct user *out, unsigned *wait,
		    struct err *err)
{
	uint64_t now = io_now_ms();
	bool bad = limiter_known_bad(&a->limiter, STRZ(token), now);

	*wait = 0;
	if (!bad && store_token_check(a->parts.store, token, out, err) == 0)
		return 0;
	if (!bad && err->code != ENOENT)
		return -1;
	*wait = limiter_bad(&a->limiter, client, STRZ(token), now);
	return err_text(err, EACCES, "no such token");
}

enum gate_verdict api_may_enter(void *ctx, const char *space_id, const char *token, const char *client, uint32_t *wait,
				char user[TICKET_ID])
{
	struct api *a = ctx;
	struct err err = ERR_INIT;
	struct user u = {0};
	struct space sp = {0};

	if (api_check_token(a, token, STRZ(client), &u, wait, &err) < 0)
		return err.code != EACCES ? VERDICT_LATER : *wait ? VERDICT_SLOW : VERDICT_WRONG;
	enum gate_verdict verdict = VERDICT_FOREIGN;
	if (store_space_by_id(a->parts.store, space_id, &sp, &err) == 0) {
		if (sp.visibility != SPACE_PRIVATE || user_owns(&u, &sp))
			verdict = VERDICT_ENTER;
		space_release(&sp);
	} else if (err.code != ENOENT) {
		verdict = VERDICT_LATER;
	}
	if (verdict == VERDICT_ENTER)
		snprintf(user, TICKET_ID, "%s", u.id);
	user_release(&u);
	return verdict;
}

void api_access_renew(struct api *a)
{
	struct err err = ERR_INIT;

	if (access_keys_renew(a->parts.keys, &err) < 0)
		log_error("after the next start old tickets may be valid again, for a day at most: %s", err.msg);
}

void api_access_revoke(struct api *a, const char *user_id)
{
	api_access_renew(a);
	access_expel(a->parts.keys, user_id);
}

/* ---- the API ---- */

/* What @gradio/client asks for, to put it as `__sign` into addresses. */
void space_jwt_get(struct call *c)
{
	char text[TICKET_TEXT];

	if (!c->known) {
		call_error(c, 401, NULL, "Invalid user token: a token is needed");
		return;
	}
	access_ticket_make(c->a->parts.keys, TICKET_SIGN, c->space.id, c->me.id, JWT_S, text);
	call_json(c, 200, json_pack("{s:s}", "token", text));
	sodium_memzero(text, sizeof(text));
}

/* Hugging Face's update_repo_settings; the older clients say `private`. */
void space_settings_put(struct call *c)
{
	json_t *word = json_object_get(c->body, "visibility"), *secret = json_object_get(c->body, "private");
	json_t *gated = json_object_get(c->body, "gated");
	enum space_visibility v = c->space.visibility;
	struct err err = ERR_INIT;

	if (gated && !json_is_false(gated) && !json_is_null(gated)) {
		call_error(c, 400, NULL, "Spaces are not gated: \"visibility\" says who may open them");
		return;
	}
	if (word && (!json_is_string(word) || !space_visibility_of(json_string_value(word), &v))) {
		call_error(c, 400, NULL, "\"visibility\" is public, protected or private");
		return;
	}
	if (!word && json_is_boolean(secret))
		v = json_is_true(secret) ? SPACE_PRIVATE : SPACE_PUBLIC;
	/* A ticket that somebody had while it was public is none for the private Space. */
	if (v == SPACE_PRIVATE && c->space.visibility != SPACE_PRIVATE)
		api_access_renew(c->a);
	if (v != c->space.visibility) {
		if (spaces_set_visibility(c->a->parts.spaces, c->space.id, v, &err) < 0) {
			call_fail(c, &err);
			return;
		}
		store_event_add(c->a->parts.store, c->space.id, c->me.id, "visibility", space_visibility_name(v), &err);
	}
	call_json(c, 200,
		  json_pack("{s:s, s:b, s:b}", "visibility", space_visibility_name(v), "private", v != SPACE_PUBLIC,
			    "gated", 0));
}

/* ---- sessions of the apex ---- */

static const char *cookie_name(const struct call *c)
{
	return access_secure(c->a->parts.keys) ? "__Host-" COOKIE_SESSION : COOKIE_SESSION;
}

static bool cookie_value(struct str header, const char *name, struct str *value)
{
	size_t n = strlen(name);

	while (header.n) {
		const char *end = memchr(header.p, ';', header.n);
		struct str pair = {header.p, end ? (size_t)(end - header.p) : header.n};
		header.n -= pair.n + (end != NULL);
		header.p += pair.n + (end != NULL);
		for (; pair.n && *pair.p == ' '; pair.p++)
			pair.n--;
		if (pair.n > n && pair.p[n] == '=' && !memcmp(pair.p, name, n)) {
			*value = (struct str){pair.p + n + 1, pair.n - n - 1};
			return true;
		}
	}
	return false;
}

/* For reading pages only: what changes something needs a token in the request. The pages of Spaces are of the same site for a
 * browser, and SameSite does not hold them off. */
void call_session(struct call *c)
{
	struct str path = http_path(c->r), method = http_method(c->r), header, value;
	struct ticket t;
	struct err err = ERR_INIT;

	if ((!str_eq(method, "GET") && !str_eq(method, "HEAD")) || (path.n >= 5 && !memcmp(path.p, "/api/", 5)))
		return;
	c->known = http_header(c->r, "Cookie", &header) && cookie_value(header, cookie_name(c), &value) &&
		   access_session_read(c->a->parts.keys, value, &t) &&
		   store_token_user(c->a->parts.store, t.subject, &c->me, &err) == 0;
}

static void set_cookie(struct call *c, const char *value, unsigned seconds)
{
	http_set_header(c->r, "Set-Cookie", "%s=%s; Path=/; Max-Age=%u; HttpOnly; SameSite=Lax%s", cookie_name(c),
			value, seconds, access_secure(c->a->parts.keys) ? "; Secure" : "");
}

bool call_from_elsewhere(struct call *c)
{
	struct str origin, host = http_host(c->r);

	if (!http_header(c->r, "Origin", &origin))
		return false;
	const char *sep = memmem(origin.p, origin.n, "://", 3);
	size_t n = sep ? origin.n - (size_t)(sep + 3 - origin.p) : 0;
	if (sep && n == host.n && strncasecmp(sep + 3, host.p, n) == 0)
		return false;
	call_error(c, 403, NULL, "a form of another site is refused");
	return true;
}

/* ---- signing in ---- */

/* Where to go afterwards; checked: they come out of an address that anybody can make. */
struct destination {
	char space[TICKET_ID];
	char host[DOMAIN_MAX + 1]; /* a domain of the Space's own, or "" */
	struct buf path;	   /* a string */
};

/* Only one that is the Space's: nobody else gets a ticket for it. */
static void destination_read_host(struct call *c, struct str query, struct destination *d)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct space sp = {0};
	struct err err = ERR_INIT;
	char host[DOMAIN_MAX + 1];

	if (*d->space && url_query_get(query, "host", &text) && text.data &&
	    domain_check(text.data, c->a->config->domain, host, &err) == 0 && host[0] != '*' &&
	    store_space_by_id(c->a->parts.store, d->space, &sp, &err) == 0 && call_has_domain(c, &sp, host))
		memcpy(d->host, host, sizeof host);
	space_release(&sp);
}

static void destination_read(struct call *c, struct str query, struct destination *d)
{
	cleanup_buf struct buf space = BUF_INIT;

	*d = (struct destination){0};
	if (url_query_get(query, "space", &space) && ticket_id_ok(space.data))
		memcpy(d->space, space.data, sizeof(d->space));
	destination_read_host(c, query, d);
	bool ok = url_query_get(query, "path", &d->path) && d->path.len && d->path.len <= PATH_MAX_BYTES &&
		  d->path.data[0] == '/';
	for (size_t i = 0; ok && i < d->path.len; i++)
		ok = (unsigned char)d->path.data[i] > 0x20 && (unsigned char)d->path.data[i] < 0x7f &&
		     d->path.data[i] != '#';
	if (!ok) {
		buf_clear(&d->path);
		buf_adds(&d->path, "/");
	}
}

static void send_form(struct call *c, int status, const struct destination *d, const char *message)
{
	const struct space_view v = {.public_url = c->a->config->public_url, .domain = c->a->config->domain};
	cleanup_free char *apps = json_app_url(&v, "*"), *own = *d->host ? json_host_url(&v, d->host) : xstrdup("");
	cleanup_free char *origins = xasprintf("%s%s%s", apps, *own ? " " : "", own);
	cleanup_buf struct buf body = BUF_INIT;

	if (*message) {
		buf_adds(&body, "<p role=\"alert\">");
		html_escape(&body, message);
		buf_adds(&body, "</p>\n");
	}
	buf_addf(&body,
		 "<form method=\"post\" action=\"/sign-in\">\n<input type=\"hidden\" name=\"space\" value=\"%s\">\n"
		 "<input type=\"hidden\" name=\"host\" value=\"%s\">\n"
		 "<input type=\"hidden\" name=\"path\" value=\"",
		 d->space, d->host);
	html_escape(&body, d->path.data);
	buf_adds(&body,
		 "\">\n<p><label for=\"token\">Your token</label><br>\n"
		 "<input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" size=\"44\""
		 " required autofocus></p>\n<p><button type=\"submit\">Sign in</button></p>\n</form>\n"
		 "<p>For a day, in this browser. A token that is removed ends it.</p>\n");
	page_send_form(c, status, "Sign in", body.data, origins);
}

static void send_stranger(struct call *c)
{
	cleanup_buf struct buf body = BUF_INIT;

	buf_adds(&body, "<p>There is no such Space, or ");
	html_escape(&body, c->me.name);
	buf_adds(&body, " may not see it.</p>\n<form method=\"post\" action=\"/sign-out\"><p><button "
			"type=\"submit\">Sign out</button></p></form>\n");
	page_send(c, 404, "Not found", body.data);
}

/* With a ticket to the app, which its gate turns into a cookie. */
static void send_to_app(struct call *c, const struct space *sp, const struct destination *d)
{
	const struct space_view v = {.public_url = c->a->config->public_url, .domain = c->a->config->domain};
	cleanup_free char *url = *d->host ? json_host_url(&v, d->host) : json_app_url(&v, sp->label);
	const char *path = d->path.data;
	char text[TICKET_TEXT];

	access_ticket_make(c->a->parts.keys, TICKET_SIGN, sp->id, c->me.id, REDIRECT_S, text);
	http_set_header(c->r, "Location", "%s%s%c__sign=%s", url, path, strchr(path, '?') ? '&' : '?', text);
	http_set_header(c->r, "Referrer-Policy", "no-referrer");
	http_set_header(c->r, "Cache-Control", "no-store");
	http_reply(c->r, 302, "text/plain; charset=utf-8", NULL, 0);
	sodium_memzero(text, sizeof(text));
}

void sign_in_get(struct call *c)
{
	struct destination d;
	struct space sp = {0};
	struct err err = ERR_INIT;

	destination_read(c, http_query(c->r), &d);
	if (!c->known) {
		send_form(c, 200, &d, "");
	} else if (!*d.space) {
		page_spaces_redirect(c);
	} else if (store_space_by_id(c->a->parts.store, d.space, &sp, &err) < 0 || sp.stage == STAGE_DELETING ||
		   !call_may_read(c, &sp)) {
		send_stranger(c);
	} else {
		send_to_app(c, &sp, &d);
	}
	space_release(&sp);
	buf_release(&d.path);
}

static void begin_session(struct call *c, const struct destination *d, const char *token, const char *user_id)
{
	cleanup_buf struct buf path = BUF_INIT;
	char id[STORE_ID], text[TICKET_TEXT];
	struct err err = ERR_INIT;

	if (store_token_id(c->a->parts.store, token, id, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	access_ticket_make(c->a->parts.keys, TICKET_SESSION, id, user_id, TICKET_MAX, text);
	set_cookie(c, text, TICKET_MAX);
	sodium_memzero(text, sizeof(text));
	url_encode(d->path.data, d->path.len, true, &path);
	if (*d->space)
		http_set_header(c->r, "Location", "/sign-in?space=%s&host=%s&path=%s", d->space, d->host, path.data);
	else
		http_set_header(c->r, "Location", "/");
	http_reply(c->r, 303, "text/plain; charset=utf-8", NULL, 0);
}

static void on_form(struct http_req *r, struct str body, void *ctx)
{
	struct call *c = ctx;
	cleanup_buf struct buf token = BUF_INIT;
	struct destination d;
	struct user u = {0};
	struct err err = ERR_INIT;
	unsigned wait;

	destination_read(c, body, &d);
	if (!url_query_get(body, "token", &token) || !token.len) {
		send_form(c, 400, &d, "A token is needed.");
	} else if (api_check_token(c->a, token.data, http_client(r), &u, &wait, &err) == 0) {
		begin_session(c, &d, token.data, u.id);
	} else if (err.code != EACCES) {
		call_fail(c, &err);
	} else if (wait) {
		http_set_header(r, "Retry-After", "%u", wait);
		send_form(c, 429, &d, "There were too many wrong tokens from your address. Try again later.");
	} else {
		send_form(c, 401, &d, "This token is not valid.");
	}
	if (token.data)
		sodium_memzero(token.data, token.len);
	user_release(&u);
	buf_release(&d.path);
}

void sign_in_post(struct call *c)
{
	if (!call_from_elsewhere(c))
		http_collect(c->r, FORM_MAX, on_form, c);
}

void sign_out_post(struct call *c)
{
	if (call_from_elsewhere(c))
		return;
	set_cookie(c, "", 0);
	http_set_header(c->r, "Location", "/");
	http_reply(c->r, 303, "text/plain; charset=utf-8", NULL, 0);
}
