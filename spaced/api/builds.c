/* Builds, releases and events of a Space; builds by their id alone. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"

#define LIST_DEFAULT 50
#define LIST_MAX 500

static size_t limit_of(struct call *c)
{
	cleanup_buf struct buf v = BUF_INIT;
	unsigned long n = call_query(c, "limit", &v) ? strtoul(v.data, NULL, 10) : 0;

	return n == 0 ? LIST_DEFAULT : n < LIST_MAX ? n : LIST_MAX;
}

static json_t *build_json(struct call *c, const struct build *b, const char *space)
{
	unsigned position = b->state == BUILD_QUEUED ? spaces_queue_position(c->a->parts.spaces, b->id) : 0;

	return json_build(b, space, position);
}

/* "owner/name" of a Space, malloc'd; NULL when it is gone. */
static char *space_name(struct call *c, const char *id)
{
	struct err err = ERR_INIT;
	struct space sp;

	if (store_space_by_id(c->a->parts.store, id, &sp, &err) < 0)
		return NULL;
	char *name = xasprintf("%s/%s", sp.owner, sp.name);
	space_release(&sp);
	return name;
}

static void answer_builds(struct call *c, const char *space_id)
{
	struct err err = ERR_INIT;
	struct build *list = NULL;
	size_t n;

	if (store_build_list(c->a->parts.store, space_id, limit_of(c), &list, &n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	json_t *out = json_array();
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *name = space_name(c, list[i].space_id);
		json_array_append_new(out, build_json(c, &list[i], name));
		build_release(&list[i]);
	}
	free(list);
	call_json(c, 200, out);
}

void builds_get(struct call *c)
{
	answer_builds(c, c->space.id);
}

void builds_all_get(struct call *c)
{
	answer_builds(c, NULL);
}

/* Finds the build for a caller who may write to its Space, which becomes c->space. False: answered, always alike. */
static bool find_build(struct call *c, const char *id, struct build *b)
{
	struct err err = ERR_INIT;

	if (store_build_by_id(c->a->parts.store, id, b, &err) == 0) {
		if (*c->space.id ? !strcmp(c->space.id, b->space_id)
				 : store_space_by_id(c->a->parts.store, b->space_id, &c->space, &err) == 0 &&
				       call_may_write(c, &c->space))
			return true;
		build_release(b);
		err.code = ENOENT;
	}
	if (err.code == ENOENT)
		call_error(c, 404, NULL, "there is no build %s", id);
	else
		call_fail(c, &err);
	return false;
}

static void answer_build(struct call *c, const char *id)
{
	struct build b;

	if (!find_build(c, id, &b))
		return;
	cleanup_free char *name = xasprintf("%s/%s", c->space.owner, c->space.name);
	call_json(c, 200, build_json(c, &b, name));
	build_release(&b);
}

static void cancel(struct call *c, const char *id)
{
	struct err err = ERR_INIT;
	struct build b;

	if (!find_build(c, id, &b))
		return;
	bool open = b.state == BUILD_QUEUED || b.state == BUILD_RUNNING;
	const char *state = build_state_name(b.state);
	build_release(&b);
	if (!open) {
		call_error(c, 409, NULL, "the build has ended already: %s", state);
		return;
	}
	if (spaces_cancel_build(c->a->parts.spaces, id, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	store_event_add(c->a->parts.store, c->space.id, c->me.id, "cancel", id, &err);
	answer_build(c, id);
}

void build_get(struct call *c)
{
	answer_build(c, c->vars[2]);
}

void build_cancel(struct call *c)
{
	cancel(c, c->vars[2]);
}

void build_any_get(struct call *c)
{
	answer_build(c, c->vars[0]);
}

void build_any_cancel(struct call *c)
{
	cancel(c, c->vars[0]);
}

void releases_get(struct call *c)
{
	struct err err = ERR_INIT;
	struct release *list = NULL;
	size_t n;

	if (store_release_list(c->a->parts.store, c->space.id, &list, &n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	json_t *out = json_array();
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(out, json_release(&list[i], !strcmp(list[i].id, c->space.release_id)));
		release_release(&list[i]);
	}
	free(list);
	call_json(c, 200, out);
}

static void answer_events(struct call *c, const char *space_id)
{
	struct err err = ERR_INIT;
	struct event *list = NULL;
	size_t n;

	if (store_event_list(c->a->parts.store, space_id, limit_of(c), &list, &n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	json_t *out = json_array();
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(out, json_event(&list[i]));
		event_release(&list[i]);
	}
	free(list);
	call_json(c, 200, out);
}

void events_get(struct call *c)
{
	answer_events(c, c->space.id);
}

void admin_events_get(struct call *c)
{
	answer_events(c, NULL);
}
