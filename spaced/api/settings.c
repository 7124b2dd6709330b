/* The settings page of a Space, for its owner. What it changes needs a token in the form: a cookie is for reading (access.c). */
#include <errno.h>
#include <sodium.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"
#include "spaced/http/url.h"

static void add_form(const struct space *sp, const char *time, struct buf *out)
{
	buf_addf(out, "<form method=\"post\" action=\"/spaces/%s/%s/settings\">\n", sp->owner, sp->name);
	buf_adds(out, "<p><label for=\"time\">Sleep time: 30m, 12h, 2d, never, or default (the host's)</label><br>\n"
		      "<input id=\"time\" name=\"time\" size=\"12\" required value=\"");
	html_escape(out, time);
	buf_adds(out,
		 "\"></p>\n<p><label for=\"token\">Your token</label><br>\n"
		 "<input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" size=\"44\""
		 " required></p>\n<p><button type=\"submit\">Set</button></p>\n</form>\n");
}

/* Of c->space. `time`: what the field holds. */
static void send_page(struct call *c, int status, const char *time, const char *message)
{
	const struct space *sp = &c->space;
	cleanup_free char *title = xasprintf("%s/%s: settings", sp->owner, sp->name);
	cleanup_buf struct buf body = BUF_INIT;
	char sleeps[SLEEP_TEXT];

	buf_addf(&body, "<p class=\"crumbs\"><a href=\"/\">Spaces</a> / <a href=\"/spaces/%s/%s\">%s/%s</a></p>\n",
		 sp->owner, sp->name, sp->owner, sp->name);
	if (*message) {
		buf_adds(&body, "<p role=\"alert\">");
		html_escape(&body, message);
		buf_adds(&body, "</p>\n");
	}
	sleep_text(c->a->config, sp, sleeps);
	buf_adds(&body, "<h2>Sleep</h2>\n<p>The app is stopped: <strong>");
	html_escape(&body, sleeps);
	buf_adds(&body, "</strong>. The next visit starts it again.</p>\n");
	add_form(sp, time, &body);
	page_send(c, status, title, body.data);
}

void page_settings(struct call *c)
{
	send_page(c, 200, "", "");
}

static void change(struct call *c, const char *time)
{
	struct err err = ERR_INIT;
	int32_t seconds;

	if (!call_find_space(c, true))
		return;
	if (!sleep_time_parse(time, &seconds)) {
		send_page(c, 400, time, "A sleep time is such as 30m, 12h or 2d, never, or default.");
	} else if (sleep_time_set(c, seconds, &err) < 0) {
		call_fail(c, &err);
	} else {
		http_set_header(c->r, "Location", "/spaces/%s/%s/settings", c->space.owner, c->space.name);
		http_reply(c->r, 303, "text/plain; charset=utf-8", NULL, 0);
	}
}

static void on_form(struct http_req *r, struct str body, void *ctx)
{
	struct call *c = ctx;
	cleanup_buf struct buf token = BUF_INIT, time = BUF_INIT;
	struct err err = ERR_INIT;
	unsigned wait = 0;

	user_release(&c->me);
	c->me = (struct user){0};
	if (!url_query_get(body, "token", &token) || !token.len || !url_query_get(body, "time", &time) || !time.len) {
		c->known = false;
		call_error(c, 400, NULL, "a token and a sleep time are needed");
	} else {
		c->known = api_check_token(c->a, token.data, http_client(r), &c->me, &wait, &err) == 0;
		if (c->known) {
			change(c, time.data);
		} else if (err.code != EACCES) {
			call_fail(c, &err);
		} else if (wait) {
			http_set_header(r, "Retry-After", "%u", wait);
			call_error(c, 429, NULL, "too many wrong tokens from your address; try again later");
		} else {
			call_error(c, 401, NULL, "this token is not valid");
		}
	}
	if (token.data)
		sodium_memzero(token.data, token.len);
}

void page_settings_post(struct call *c)
{
	if (!call_from_elsewhere(c))
		http_collect(c->r, FORM_MAX, on_form, c);
}
