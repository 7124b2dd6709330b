/* Sleep as the Hub has it: the sleep time; and, ours, to put a Space to sleep and to wake it by hand. */
#include <string.h>

#include "spaced/api/api_int.h"

static void note(struct call *c, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	/* For people; what was asked for has been done either way. */
	store_event_add(c->a->parts.store, c->space.id, c->me.id, kind, text, &err);
}

void space_sleep(struct call *c)
{
	struct err err = ERR_INIT;

	if (spaces_sleep(c->a->parts.spaces, c->space.id, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "asleep", "sleep asked for");
	call_runtime_now(c);
}

void space_wake(struct call *c)
{
	spaces_wake(c->a->parts.spaces, c->space.id, "its owner");
	call_runtime_now(c);
}

/* ---- the sleep time ---- */

void sleep_text(const struct config *config, const struct space *sp, char out[SLEEP_TEXT])
{
	static const struct {
		uint32_t s;
		char unit;
	} units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
	int64_t n = sp->sleep_s ? sp->sleep_s : (int64_t)config->sleep_after_s;
	const char *whose = sp->sleep_s ? "" : " (the host's)";
	size_t i = 0;

	if (strcmp(sp->sdk, "static") == 0 || n <= 0) {
		snprintf(out, SLEEP_TEXT, "never%s", strcmp(sp->sdk, "static") == 0 ? ": no process runs" : whose);
		return;
	}
	while (n % units[i].s)
		i++;
	snprintf(out, SLEEP_TEXT, "after %lld%c without a visit%s", (long long)(n / units[i].s), units[i].unit, whose);
}

bool sleep_time_parse(const char *text, int32_t *seconds)
{
	uint32_t n;

	if (strcmp(text, "never") == 0)
		*seconds = -1;
	else if (strcmp(text, "default") == 0)
		*seconds = 0;
	else if (config_parse_duration(text, &n) == 0 && n > 0 && n <= INT32_MAX)
		*seconds = (int32_t)n;
	else
		return false;
	return true;
}

int sleep_time_set(struct call *c, int32_t seconds, struct err *err)
{
	char text[SLEEP_TEXT];

	if (spaces_set_sleep(c->a->parts.spaces, c->space.id, seconds, err) < 0)
		return -1;
	c->space.sleep_s = seconds;
	sleep_text(c->a->config, &c->space, text);
	note(c, "sleep time", text);
	return 0;
}

/* {"seconds": N}: stopped after so long without a visit; -1: never; 0: the host's (HfApi.set_space_sleep_time). Or, ours,
 * {"time": "30m", "never" or "default"}. */
void space_sleep_time(struct call *c)
{
	const json_t *n = json_object_get(c->body, "seconds"), *time = json_object_get(c->body, "time");
	struct err err = ERR_INIT;
	int32_t seconds = 0;
	bool ok = !n != !time;

	if (ok && n) {
		ok = json_is_integer(n) && json_integer_value(n) >= -1 && json_integer_value(n) <= INT32_MAX;
		seconds = ok ? (int32_t)json_integer_value(n) : 0;
	} else if (ok) {
		ok = json_is_string(time) && sleep_time_parse(json_string_value(time), &seconds);
	}
	if (!ok)
		call_error(
		    c, 400, NULL,
		    "\"seconds\" must be a number of seconds, 0 for the host's or -1 for never; or \"time\" a time "
		    "such as 30m, 12h or 2d, \"default\" or \"never\"");
	else if (sleep_time_set(c, seconds, &err) < 0)
		call_fail(c, &err);
	else
		call_runtime_now(c);
}
