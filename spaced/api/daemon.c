/* What an admin may ask of the daemon as a whole: to read its configuration again, to make way for a newer program. The
 * parent does it. */
#include "spaced/api/api_int.h"
#include "spaced/superior.h"

static void on_reloaded(void *ctx, bool done, const char *text)
{
	struct call *c = ctx;

	c->asked = NULL;
	if (done)
		call_json(c, 200, json_pack("{s:s}", "message", text));
	else
		call_error(c, 409, NULL, "%s", text);
}

static void ask(struct call *c, enum link_verb verb, superior_cb answered)
{
	c->asked = c->a->parts.superior;
	superior_ask(c->asked, verb, answered, c);
}

void admin_reload(struct call *c)
{
	ask(c, LINK_RELOAD, on_reloaded);
}

static void on_upgrading(void *ctx, bool done, const char *text)
{
	struct call *c = ctx;

	c->asked = NULL;
	if (done)
		call_json(c, 202, json_pack("{s:s}", "message", "another program takes over"));
	else
		call_error(c, 409, NULL, "%s", text);
}

void admin_upgrade(struct call *c)
{
	ask(c, LINK_UPGRADE, on_upgrading);
}
