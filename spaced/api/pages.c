/* The pages of the apex host: the first page with its cards, a page per Space, static assets. Text of outsiders (README
 * headers, messages) is escaped everywhere; nothing of theirs becomes markup, a class or a URL. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/assets.h"
#include "base/cleanup.h"
#include "spaced/api/api_int.h"

#define CARDS 1000 /* as many as GET /api/spaces gives at once, which app.js reads */
#define CSP                                                                                                            \
	"default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self';"           \
	" frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

void html_escape(struct buf *out, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '&':
			buf_adds(out, "&amp;");
			break;
		case '<':
			buf_adds(out, "&lt;");
			break;
		case '>':
			buf_adds(out, "&gt;");
			break;
		case '"':
			buf_adds(out, "&quot;");
			break;
		case '\'':
			buf_adds(out, "&#39;");
			break;
		default:
			buf_addc(out, *s);
		}
}

/* `form_origin`: browsers hold the redirects behind a form to form-action too. */
static void send_html(struct call *c, int status, const struct buf *html, const char *form_origin)
{
	http_set_header(c->r, "Content-Security-Policy", "%s%s%s", CSP, *form_origin ? " " : "", form_origin);
	http_set_header(c->r, "Referrer-Policy", "same-origin");
	http_set_header(c->r, "Cache-Control", "no-store");
	call_text(c, status, "text/html; charset=utf-8", (struct str){html->data, html->len});
}

void page_send(struct call *c, int status, const char *title, const char *body)
{
	page_send_form(c, status, title, body, "");
}

void page_send_form(struct call *c, int status, const char *title, const char *body, const char *origin)
{
	cleanup_buf struct buf html = BUF_INIT;

	buf_adds(&html, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
			"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
	html_escape(&html, title);
	buf_adds(&html, " · Spaced</title>\n<link rel=\"icon\" href=\"/assets/favicon.svg\" type=\"image/svg+xml\">\n"
			"<link rel=\"stylesheet\" href=\"/assets/style.css\">\n</head>\n<body>\n"
			"<header class=\"bar\"><a class=\"brand\" href=\"/\"><img src=\"/assets/favicon.svg\" "
			"width=\"28\" height=\"28\""
			" alt=\"\">Spaces</a></header>\n<main>\n<h1>");
	html_escape(&html, title);
	buf_addf(&html, "</h1>\n%s\n</main>\n</body>\n</html>\n", body);
	send_html(c, status, &html, origin);
}

/* ---- assets ---- */

static const struct asset *find_asset(const char *folder, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", folder, name);

	for (const struct asset *a = asset_table; a->name; a++)
		if (!strcmp(a->name, path))
			return a;
	return NULL;
}

static const char *type_of(const char *name)
{
	static const struct {
		const char *end, *type;
	} types[] = {{".css", "text/css; charset=utf-8"},
		     {".js", "text/javascript; charset=utf-8"},
		     {".svg", "image/svg+xml"},
		     {NULL, NULL}};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && types[i].end; i++)
		if (!strcmp(dot, types[i].end))
			return types[i].type;
	return NULL;
}

void page_asset(struct call *c)
{
	const struct asset *a = find_asset("web", c->vars[0]);
	const char *type = type_of(c->vars[0]);
	unsigned char hash[16];
	char etag[40] = "\"";
	struct str match;

	/* Templates are not assets. */
	if (!a || !type) {
		call_error(c, 404, NULL, "there is nothing at this address");
		return;
	}
	crypto_generichash(hash, sizeof(hash), (const unsigned char *)a->data, a->size, NULL, 0);
	sodium_bin2hex(etag + 1, sizeof(etag) - 1, hash, sizeof(hash));
	memcpy(etag + 33, "\"", 2);
	http_set_header(c->r, "ETag", "%s", etag);
	http_set_header(c->r, "Cache-Control", "public, max-age=300");
	if (http_header(c->r, "If-None-Match", &match) &&
	    (memmem(match.p, match.n, etag, strlen(etag)) || str_eq(match, "*"))) {
		http_reply(c->r, 304, NULL, NULL, 0);
		return;
	}
	call_text(c, 200, type, (struct str){a->data, a->size});
}

void page_spaces_redirect(struct call *c)
{
	http_set_header(c->r, "Location", "/");
	http_reply(c->r, 302, "text/plain; charset=utf-8", NULL, 0);
}

/* ---- the first page ---- */

/* The words of app.js, which writes them again as stages change. */
static const char *const stage_words[] = {
    [STAGE_NO_APP_FILE] = "No app file",
    [STAGE_CONFIG_ERROR] = "Configuration error",
    [STAGE_BUILDING] = "Building",
    [STAGE_BUILD_ERROR] = "Build error",
    [STAGE_APP_STARTING] = "Starting",
    [STAGE_RUNNING] = "Running",
    [STAGE_RUNNING_BUILDING] = "Running, building",
    [STAGE_RUNNING_APP_STARTING] = "Running, restarting",
    [STAGE_RUNTIME_ERROR] = "Runtime error",
    [STAGE_STOPPED] = "Stopped",
    [STAGE_PAUSED] = "Paused",
    [STAGE_SLEEPING] = "Sleeping",
    [STAGE_DELETING] = "Deleting",
};

/* The README's colours (hf-spaces §2): only these words become a class. Without one, by a hash of the name (app.js
 * computes the same). */
static const char *colour(json_t *card, const char *key, const char *owner, const char *name, const char *more)
{
	static const char *const known[] = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"};
	const char *v = json_string_value(json_object_get(card, key));
	cleanup_free char *id = xasprintf("%s/%s%s", owner, name, more);
	uint32_t h = 0;

	for (size_t i = 0; v && i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(v, known[i]))
			return known[i];
	for (const char *p = id; *p; p++)
		h = h * 31 + (unsigned char)*p;
	return known[h % (sizeof(known) / sizeof(known[0]))];
}

static const char *card_text(json_t *card, const char *key, const char *fallback)
{
	const char *v = json_string_value(json_object_get(card, key));

	return v && *v ? v : fallback;
}

/* The shape that web/index.html describes. */
static void add_card(struct call *c, const struct space *sp, struct buf *out)
{
	const struct space_view v = {.public_url = c->a->config->public_url, .domain = c->a->config->domain};
	cleanup_free char *url = json_app_url(&v, sp->label);
	json_t *card = json_loads(sp->card, 0, NULL);

	buf_addf(out, "<li class=\"card\" data-id=\"%s/%s\" data-stage=\"%s\"><div class=\"cover from-%s to-%s\">",
		 sp->owner, sp->name, space_stage_name(sp->stage), colour(card, "colorFrom", sp->owner, sp->name, ""),
		 colour(card, "colorTo", sp->owner, sp->name, "+"));
	buf_adds(out, "<span class=\"emoji\" aria-hidden=\"true\">");
	html_escape(out, card_text(card, "emoji", "🚀"));
	buf_adds(out, "</span><h2><a href=\"");
	html_escape(out, url);
	buf_adds(out, "\">");
	html_escape(out, card_text(card, "title", sp->name));
	buf_adds(out, "</a></h2>");
	if (*card_text(card, "short_description", "")) {
		buf_adds(out, "<p>");
		html_escape(out, card_text(card, "short_description", ""));
		buf_adds(out, "</p>");
	}
	buf_addf(
	    out,
	    "</div><div class=\"foot\"><a class=\"id\" href=\"/spaces/%s/%s\">%s/%s</a><span class=\"stage\">%s</span>"
	    "</div></li>",
	    sp->owner, sp->name, sp->owner, sp->name, stage_words[sp->stage]);
	json_decref(card);
}

static int add_cards(struct call *c, struct buf *out, struct err *err)
{
	struct space_filter f = {.viewer_id = !c->known ? NULL : c->me.admin ? "*" : c->me.id, .limit = CARDS};
	struct space *list = NULL;
	size_t n = 0;

	if (store_space_list(c->a->parts.store, &f, &list, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (list[i].stage != STAGE_DELETING)
			add_card(c, &list[i], out);
		space_release(&list[i]);
	}
	free(list);
	return 0;
}

/* Copies the template and puts something in place of each mark. */
void page_first(struct call *c)
{
	const struct asset *a = find_asset("web", "index.html");
	cleanup_free char *endpoint = call_endpoint(c);
	cleanup_buf struct buf html = BUF_INIT, cards = BUF_INIT;
	struct err err = ERR_INIT;

	if (!a)
		err_text(&err, EIO, "web/index.html is not in this binary");
	if (!a || add_cards(c, &cards, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	const char *at = a->data, *mark;
	for (; (mark = strstr(at, "<!--")); at = mark) {
		buf_add(&html, at, (size_t)(mark - at));
		if (!strncmp(mark, "<!--spaces-->", 13)) {
			buf_add(&html, cards.data ? cards.data : "", cards.len);
			mark += 13;
		} else if (!strncmp(mark, "<!--endpoint-->", 15)) {
			html_escape(&html, endpoint);
			mark += 15;
		} else {
			/* The comment about the template is for its readers, not for visitors. */
			const char *end = strstr(mark, "-->");
			mark = end ? end + 3 : mark + strlen(mark);
		}
	}
	buf_adds(&html, at);
	send_html(c, 200, &html, "");
}

/* ---- a Space ---- */

static void add_commands(struct call *c, const struct space *sp, struct buf *out)
{
	cleanup_free char *endpoint = call_endpoint(c);
	cleanup_buf struct buf remote = BUF_INIT;

	buf_addf(&remote, "%s/spaces/%s/%s", endpoint, sp->owner, sp->name);
	buf_adds(out, "<h2>Get it</h2>\n<pre>git clone ");
	html_escape(out, remote.data);
	buf_adds(out, "</pre>\n<h2>Change it</h2>\n<pre>git push ");
	html_escape(out, remote.data);
	buf_addf(out, " %s</pre>\n<p>git asks for a name (any) and a password: a token of %s.</p>\n",
		 sp->default_branch, sp->owner);
}

static void add_domains(struct call *c, const struct space *sp, struct buf *out)
{
	json_t *names = call_domain_names(c, sp), *name;
	size_t i;

	buf_addf(out, "<h2>Domains</h2>\n<ul>\n<li>%s.%s</li>\n", sp->label, c->a->config->domain);
	json_array_foreach(names, i, name)
	{
		buf_adds(out, "<li>");
		html_escape(out, json_string_value(name));
		buf_adds(out, "</li>\n");
	}
	if (c->a->config->owners_add_domains)
		buf_addf(out,
			 "</ul>\n<p>Its owner adds one: <code>POST /api/spaces/%s/%s/domains</code> with"
			 " <code>{\"domain\": \"NAME\"}</code>.</p>\n",
			 sp->owner, sp->name);
	else
		buf_addf(out, "</ul>\n<p>An admin adds one: <code>spacectl domain add %s/%s NAME</code>.</p>\n",
			 sp->owner, sp->name);
	json_decref(names);
}

void page_space(struct call *c)
{
	const struct space *sp = &c->space;
	const struct space_view v = {.public_url = c->a->config->public_url, .domain = c->a->config->domain};
	cleanup_free char *url = json_app_url(&v, sp->label), *title = NULL;
	cleanup_buf struct buf body = BUF_INIT;
	json_t *card = json_loads(sp->card, 0, NULL);

	title = xstrdup(card_text(card, "title", sp->name));
	buf_addf(&body, "<p class=\"crumbs\"><a href=\"/\">Spaces</a> / %s / %s ", sp->owner, sp->name);
	buf_addf(&body, "<span class=\"stage\" data-stage=\"%s\">%s</span></p>\n", space_stage_name(sp->stage),
		 stage_words[sp->stage]);
	if (*card_text(card, "short_description", "")) {
		buf_adds(&body, "<p>");
		html_escape(&body, card_text(card, "short_description", ""));
		buf_adds(&body, "</p>\n");
	}
	if (*sp->stage_message) {
		buf_adds(&body, "<pre class=\"message\">");
		html_escape(&body, sp->stage_message);
		buf_adds(&body, "</pre>\n");
	}
	if (*sp->release_id) {
		buf_adds(&body, "<p><a class=\"button\" href=\"");
		if (sp->visibility == SPACE_PRIVATE)
			buf_addf(&body, "/sign-in?space=%s", sp->id);
		else
			html_escape(&body, url);
		buf_adds(&body, "\">Open the app</a></p>\n");
	}
	add_commands(c, sp, &body);
	if (call_may_write(c, sp))
		add_domains(c, sp, &body);
	buf_addf(&body,
		 "<h2>Logs</h2>\n<p><a href=\"/spaces/%s/%s/logs/build\">last build</a> ·"
		 " <a href=\"/spaces/%s/%s/logs/run\">app</a> (for its owner)</p>\n"
		 "<p><a href=\"/spaces/%s/%s/settings\">Settings</a> (for its owner)</p>\n",
		 sp->owner, sp->name, sp->owner, sp->name, sp->owner, sp->name);
	page_send(c, 200, title, body.data);
	json_decref(card);
}
