/* What a Space's host name answers, from its stage: the app, the site, or a page that says what to do. */
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

static const struct {
	uint16_t status;
	bool hold; /* an app is on its way: requests wait for it */
	const char *title;
	const char *text; /* when the stage has no message of its own */
	const char *advice;
} pages[] = {
    [STAGE_NO_APP_FILE] = {404, false, "No application file", "Nothing was pushed to the default branch yet.",
			   "Its owner can push an app to this Space's git repository."},
    [STAGE_CONFIG_ERROR] = {503, false, "Configuration error", "The header of README.md cannot be used.",
			    "Correct it and push again."},
    [STAGE_BUILDING] = {503, true, "Building", "This Space is being built.", "This page reloads by itself."},
    [STAGE_BUILD_ERROR] = {503, false, "Build error", "The build failed.",
			   "The build log says why; push a correction to build again."},
    [STAGE_APP_STARTING] = {503, true, "Starting", "The app is starting.", "This page reloads by itself."},
    [STAGE_RUNNING] = {503, true, "Starting", "The app is starting.", "This page reloads by itself."},
    [STAGE_RUNNING_BUILDING] = {503, true, "Building", "This Space is being built.", "This page reloads by itself."},
    [STAGE_RUNNING_APP_STARTING] = {503, true, "Starting", "The app is starting.", "This page reloads by itself."},
    [STAGE_RUNTIME_ERROR] = {503, false, "Runtime error", "The app ended.",
			     "The run log says why; push a correction or restart the Space."},
    [STAGE_STOPPED] = {503, false, "Stopped", "This Space is stopped.", "Its owner can restart it."},
    [STAGE_PAUSED] = {503, false, "Paused", "This Space has been paused by its owner.", "Its owner can restart it."},
    [STAGE_SLEEPING] = {503, true, "Waking up", "This Space was asleep.", "This page reloads by itself."},
    [STAGE_DELETING] = {404, false, "Not found", "This Space is being deleted.", ""},
};

static void page_text(struct spaces *s, const struct space *sp, struct buf *out)
{
	const char *message = sp->stage_message && *sp->stage_message ? sp->stage_message : pages[sp->stage].text;

	buf_addf(out, "%s\n%s", message, pages[sp->stage].advice);
	/* Visitors see its last words, as on Hugging Face; not those who may not see its source. */
	if (sp->stage == STAGE_RUNTIME_ERROR && sp->visibility != SPACE_PROTECTED && sp->generation) {
		cleanup_free char *path = logfile_run(s->config, sp->id, sp->generation);
		cleanup_buf struct buf tail = BUF_INIT;
		logfile_tail(path, 0, 4096, 25, &tail);
		if (tail.len)
			buf_addf(out, "\n\nLast lines of the log:\n%s", tail.data);
	}
}

static void to_page(struct spaces *s, const struct space *sp, struct route *r)
{
	cleanup_buf struct buf text = BUF_INIT;

	page_text(s, sp, &text);
	r->kind = pages[sp->stage].hold ? ROUTE_HOLD : ROUTE_PAGE;
	r->page_status = pages[sp->stage].status;
	r->page_title = xstrdup(pages[sp->stage].title);
	r->page_text = buf_steal(&text, NULL);
}

/* A static Space's files; false when its release is none of that kind. */
static bool to_site(struct spaces *s, const struct space *sp, struct route *r)
{
	struct release rel = {0};
	struct run_plan plan = {0};
	struct err err = ERR_INIT;

	if (!stage_serves(sp->stage) || !sp->release_id || !*sp->release_id ||
	    store_release_by_id(s->store, sp->release_id, &rel, &err) < 0)
		return false;
	bool found = run_plan_parse(rel.recipe, &plan, &err) == 0 && plan.site;
	if (found) {
		r->kind = ROUTE_UNIX;
		r->nendpoints = 1;
		snprintf(r->endpoints[0].name, sizeof r->endpoints[0].name, "/static.sock");
		snprintf(r->site, sizeof r->site, "%s", plan.site);
		r->headers = xstrdup(plan.headers ? plan.headers : "");
	}
	run_plan_release(&plan);
	release_release(&rel);
	return found;
}

static void add_endpoint(struct route *r, const struct instance *in)
{
	struct endpoint *e = &r->endpoints[r->nendpoints++];

	snprintf(e->name, sizeof e->name, "%s", in->name);
	e->generation = in->generation;
}

static void to_app(const struct instance *in, struct route *r)
{
	r->kind = ROUTE_APP;
	add_endpoint(r, in);
	for (const struct instance *other = in->unit->extra; other && r->nendpoints < ROUTE_ENDPOINTS_MAX;
	     other = other->next)
		if (other->state == INST_SERVING)
			add_endpoint(r, other);
	r->port = in->port;
	r->headers = xstrdup(in->headers);
}

void route_publish(struct spaces *s, const struct space *sp)
{
	struct unit *u = unit_find(s, sp->id);
	struct route r = {0};

	snprintf(r.host, sizeof r.host, "%s.%s", sp->label, s->config->domain);
	snprintf(r.space, sizeof r.space, "%s/%s", sp->owner, sp->name);
	snprintf(r.space_id, sizeof r.space_id, "%s", sp->id);
	r.gated = sp->visibility == SPACE_PRIVATE;
	r.rate = sp->rate == SPACE_RATE_DEFAULT ? s->config->space_rate : (uint32_t)sp->rate;
	snprintf(r.sticky, sizeof r.sticky, "%s", sp->sticky);
	if (u && u->serving && u->serving->sleep == SLEEP_AWAKE && sp->stage != STAGE_DELETING) {
		to_app(u->serving, &r);
	} else if (!to_site(s, sp, &r)) {
		to_page(s, sp, &r);
	}
	router_set(s->router, &r);
	domain_routes_set(s, sp->id, &r);
	route_release(&r);
}

void route_publish_now(struct spaces *s, const char *space_id)
{
	struct space sp = {0};
	struct err err = ERR_INIT;

	if (store_space_by_id(s->store, space_id, &sp, &err) < 0)
		log_error("space %s: %s", space_id, err.msg);
	else
		route_publish(s, &sp);
	space_release(&sp);
}
