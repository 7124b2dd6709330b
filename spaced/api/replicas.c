/* Several instances of a Space: how many, and whether a visitor keeps to one. */
#include "spaced/api/api_int.h"

static void note(struct call *c, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	store_event_add(c->a->parts.store, c->space.id, c->me.id, kind, text, &err);
}

/* {"replicas": N}, as on the Hub; ours: {"sticky": true}. */
void space_replicas(struct call *c)
{
	const json_t *n = json_object_get(c->body, "replicas"), *sticky = json_object_get(c->body, "sticky");
	struct err err = ERR_INIT;
	char text[24];

	if ((!n && !sticky) || (n && !json_is_integer(n)) || (sticky && !json_is_boolean(sticky))) {
		call_error(c, 400, NULL, "\"replicas\" is a number of instances, \"sticky\" true or false");
		return;
	}
	json_int_t count = json_integer_value(n);
	if (n && spaces_scale(c->a->parts.spaces, c->space.id, count > 0 && count < UINT32_MAX ? (uint32_t)count : 0,
			      &err) < 0) {
		call_fail(c, &err);
		return;
	}
	if (sticky && spaces_set_sticky(c->a->parts.spaces, c->space.id, json_is_true(sticky), &err) < 0) {
		call_fail(c, &err);
		return;
	}
	snprintf(text, sizeof text, "%u", (unsigned)count);
	if (n)
		note(c, "replicas", text);
	if (sticky)
		note(c, "sticky", json_is_true(sticky) ? "on" : "off");
	call_runtime_now(c);
}
