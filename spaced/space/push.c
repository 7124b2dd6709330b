/* What a push hears: which refs deploy, then the build's log as it grows, until the app is live or has failed. The log
 * file is the source, so that a push sees exactly what the web and spacectl see. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

#define FOLLOW_MS 100
#define CHUNK 32768

struct watch {
	struct spaces *s;
	struct watch *next;
	struct push *push;
	char build_id[STORE_ID];
	char *path;
	off_t offset;
	uv_timer_t timer;
};

/* False when there is no more for now. */
static bool copy_some(struct watch *w)
{
	cleanup_close int fd = open(w->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	static char chunk[CHUNK];

	if (fd < 0)
		return false;
	ssize_t n = pread(fd, chunk, sizeof chunk, w->offset);
	if (n <= 0)
		return false;
	w->offset += n;
	push_write(w->push, chunk, (size_t)n);
	return n == (ssize_t)sizeof chunk;
}

static void closed(uv_handle_t *h)
{
	struct watch *w = h->data;

	free(w->path);
	free(w);
}

static void drop(struct watch *w)
{
	struct watch **p = &w->s->watches;

	while (*p && *p != w)
		p = &(*p)->next;
	if (*p)
		*p = w->next;
	push_finish(w->push);
	uv_close((uv_handle_t *)&w->timer, closed);
}

static void on_timer(uv_timer_t *t)
{
	struct watch *w = t->data;

	if (push_gone(w->push))
		drop(w); /* the build goes on */
	else
		copy_some(w);
}

void watch_follow(struct spaces *s, struct push *p, const char *build_id)
{
	struct watch *w = xcalloc(1, sizeof *w);

	w->s = s;
	w->push = p;
	w->path = logfile_build(s->config, build_id);
	snprintf(w->build_id, sizeof w->build_id, "%s", build_id);
	w->next = s->watches;
	s->watches = w;
	uv_timer_init(s->loop, &w->timer);
	w->timer.data = w;
	uv_timer_start(&w->timer, on_timer, 0, FOLLOW_MS);
}

void watch_end(struct spaces *s, const char *build_id, const char *fmt, ...)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct watch *next;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&text, fmt, ap);
	va_end(ap);
	for (struct watch *w = s->watches; w; w = next) {
		next = w->next;
		if (strcmp(w->build_id, build_id) != 0)
			continue;
		while (copy_some(w))
			;
		push_print(w->push, "%s", text.data);
		drop(w);
	}
}

void spaces_end_output(struct spaces *s)
{
	while (s->watches) {
		struct watch *w = s->watches;
		while (copy_some(w))
			;
		push_print(w->push,
			   "\nThe server is being restarted, so this ends here. The push is stored, and its build "
			   "goes on: spacectl\nspace logs --build, or the page of the Space, show it.\n");
		drop(w);
	}
}

/* ---- refs ---- */

static bool zero(const char *oid)
{
	return strspn(oid, "0") == strlen(oid);
}

/* The update of the default branch that is to be deployed; the others are only told about. */
static const struct ref_update *sort_refs(const struct space *sp, const struct ref_update *u, size_t n, struct push *p)
{
	const struct ref_update *deploy = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *branch = strncmp(u[i].name, "refs/heads/", 11) == 0 ? u[i].name + 11 : NULL;
		if (u[i].error)
			continue;
		if (!branch)
			push_print(p, "%s: stored\n", u[i].name);
		else if (strcmp(branch, sp->default_branch) != 0)
			push_print(p, "%s: stored; only %s deploys\n", branch, sp->default_branch);
		else if (zero(u[i].new_oid))
			push_print(p, "%s: deleted; what runs goes on running until the next push\n", branch);
		else if (strcmp(u[i].old_oid, u[i].new_oid) != 0)
			deploy = &u[i];
	}
	return deploy;
}

static void deploy(struct spaces *s, const struct git_target *t, const struct space *sp, const struct ref_update *up,
		   struct push *p)
{
	char build_id[STORE_ID];
	char text[80];
	struct err err = ERR_INIT;

	snprintf(text, sizeof text, "%s %.7s", sp->default_branch, up->new_oid);
	if (store_event_add(s->store, sp->id, t->user_id, "push", text, &err) < 0)
		log_warn("event: %s", err.msg);
	push_print(p, "Received %s/%s %.7s\n", sp->owner, sp->name, up->new_oid);
	if (sp->stage == STAGE_PAUSED) {
		push_print(p, "This Space is paused: the commit is stored; restart the Space to deploy it\n");
		push_finish(p);
		return;
	}
	life_build(s, sp, up->new_oid, "push", false, build_id, &err);
	if (!*build_id) {
		push_print(p, "The build could not be queued: %s\n", err.msg);
		push_finish(p);
		return;
	}
	if (push_option(p, "nowait")) {
		cleanup_free char *url = space_url(s->config, sp->label);
		push_print(p, "Build %s is queued; it will be at %s\n", build_id, url);
		push_finish(p);
		return;
	}
	watch_follow(s, p, build_id);
}

void spaces_pushed(struct spaces *s, const struct git_target *t, struct ref_update *updates, size_t n, struct push *p)
{
	struct err err = ERR_INIT;
	struct space sp = {0};

	if (store_space_by_id(s->store, t->space_id, &sp, &err) < 0) {
		push_print(p, "%s\n", err.msg);
		push_finish(p);
		return;
	}
	const struct ref_update *up = sort_refs(&sp, updates, n, p);
	if (up)
		deploy(s, t, &sp, up, p);
	else
		push_finish(p);
	space_release(&sp);
}
