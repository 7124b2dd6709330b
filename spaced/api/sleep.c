/* Sleep as the Hub has it: the sleep time; and, ours, to put a Space to sleep and to wake it by hand. */
#include "spaced/api/api_int.h"

static void note(struct call *c, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	/* For people; what was asked for has been done either way. */
	store_event_add(c->a->store, c->space.id, c->me.id, kind, text, &err);
}

void space_sleep(struct call *c)
{
	struct err err = ERR_INIT;

	if (spaces_sleep(c->a->spaces, c->space.id, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "asleep", "sleep asked for");
	call_runtime_now(c);
}

void space_wake(struct call *c)
{
	spaces_wake(c->a->spaces, c->space.id, "its owner");
	call_runtime_now(c);
}

/* {"seconds": N}: stopped after so long without a visit; -1: never (HfApi.set_space_sleep_time); 0: the host's. */
void space_sleep_time(struct call *c)
{
	const json_t *seconds = json_object_get(c->body, "seconds");
	json_int_t n = json_integer_value(seconds);
	struct err err = ERR_INIT;
	char text[40];

	if (!json_is_integer(seconds) || n < -1 || n > INT32_MAX) {
		call_error(c, 400, NULL, "\"seconds\" must be a number of seconds, or -1 for never");
		return;
	}
	if (spaces_set_sleep(c->a->spaces, c->space.id, (int32_t)n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	snprintf(text, sizeof text, n < 0 ? "never" : n ? "%lld s" : "as the host", (long long)n);
	note(c, "sleep time", text);
	call_runtime_now(c);
}
