/* POST .../rate: how many requests per second a Space may get. The operator's word, as it shields the others of the machine. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "proxy/rate.h"
#include "spaced/api/api_int.h"

json_t *call_rate_json(const struct call *c, const struct space *sp)
{
	bool own = sp->rate != SPACE_RATE_DEFAULT;
	uint32_t rate = own ? (uint32_t)sp->rate : c->a->config->space_rate;
	cleanup_free char *summary = rate ? xasprintf("%u per second%s", rate, own ? "" : ", the host's")
					  : xasprintf("no limit%s", own ? "" : ", the host's");

	return json_pack("{s:I, s:b, s:s}", "perSecond", (json_int_t)rate, "own", own, "summary", summary);
}

/* "none", "default", or a whole number. */
static bool read_rate(const char *text, int64_t *rate)
{
	char *end;

	if (!text || !*text)
		return false;
	if (strcmp(text, "none") == 0 || strcmp(text, "default") == 0) {
		*rate = *text == 'n' ? 0 : SPACE_RATE_DEFAULT;
		return true;
	}
	if (text[strspn(text, "0123456789")])
		return false;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	*rate = (int64_t)v;
	return errno == 0 && v >= 1 && v <= RATE_MAX;
}

/* {"rate": "N", "none" or "default"} */
void space_rate_set(struct call *c)
{
	const char *text = json_string_value(json_object_get(c->body, "rate"));
	struct err err = ERR_INIT;
	struct space now = {0};
	int64_t rate;

	if (!c->me.admin) {
		call_error(c, 403, NULL, "only an admin may do this");
		return;
	}
	if (!read_rate(text, &rate)) {
		call_error(c, 400, NULL,
			   "\"rate\" must be a number of requests per second from 1 to %d, \"none\" or \"default\"",
			   RATE_MAX);
		return;
	}
	if (spaces_set_rate(c->a->parts.spaces, c->space.id, rate, &err) < 0 ||
	    store_space_by_id(c->a->parts.store, c->space.id, &now, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	store_event_add(c->a->parts.store, c->space.id, c->me.id, "rate", text,
			&err); /* for people; it is done either way */
	call_json(c, 200, call_rate_json(c, &now));
	space_release(&now);
}
