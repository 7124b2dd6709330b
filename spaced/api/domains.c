/* Domains of Spaces: who may bring which, and the list of them. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"
#include "spaced/domain.h"

static json_t *domain_json(const struct domain *d)
{
	json_t *j = json_pack("{s:s, s:s}", "domain", d->host, "space", d->space);

	json_object_set_new(j, "addedAt", json_date(d->created));
	return j;
}

static void answer_list(struct call *c, const char *space_id)
{
	struct domain *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;

	if (store_domain_list(c->a->parts.store, space_id, &list, &n, &err) < 0) {
		call_fail(c, &err);
	} else {
		json_t *out = json_array();
		for (size_t i = 0; i < n; i++)
			json_array_append_new(out, domain_json(&list[i]));
		call_json(c, 200, out);
	}
	store_domains_free(list, n);
}

void space_domains_get(struct call *c)
{
	answer_list(c, c->space.id);
}

void admin_domains_get(struct call *c)
{
	answer_list(c, NULL);
}

/* The DNS record that brings visitors here. */
static json_t *added_json(struct call *c, const char *host)
{
	json_t *j = json_pack("{s:s}", "domain", host);
	cleanup_free char *record = xasprintf("%s. CNAME %s.%s.", host, c->space.label, c->a->config->domain);

	json_object_set_new(j, "record", json_string(record));
	return j;
}

/* {"domain": "demo.example.org"}. Whose a name is cannot be proved here, and who has it gets what visitors send there: without
 * a word of the configuration only admins say it. */
void space_domain_add(struct call *c)
{
	const char *text = json_string_value(json_object_get(c->body, "domain"));
	char host[DOMAIN_MAX + 1];
	struct err err = ERR_INIT;

	if (!c->me.admin && !c->a->config->owners_add_domains) {
		call_error(c, 403, NULL, "only an admin of this server adds domains");
	} else if (!text) {
		call_error(c, 400, NULL, "\"domain\" is a host name such as demo.example.org or *.example.org");
	} else if (spaces_domain_add(c->a->parts.spaces, c->space.id, text, host, &err) < 0) {
		call_fail(c, &err);
	} else {
		store_event_add(c->a->parts.store, c->space.id, c->me.id, "domain added", host, &err);
		call_json(c, 200, added_json(c, host));
	}
}

void space_domain_remove(struct call *c)
{
	char host[DOMAIN_MAX + 1];
	struct err err = ERR_INIT;

	if (spaces_domain_remove(c->a->parts.spaces, c->space.id, c->vars[2], host, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	store_event_add(c->a->parts.store, c->space.id, c->me.id, "domain removed", host, &err);
	call_json(c, 200, json_pack("{s:s}", "removed", host));
}

bool call_has_domain(struct call *c, const struct space *sp, const char *host)
{
	struct domain *list = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;
	bool found = false;

	if (store_domain_list(c->a->parts.store, sp->id, &list, &n, &err) < 0)
		return false;
	for (size_t i = 0; i < n && !found; i++)
		found = domain_covers(list[i].host, host);
	store_domains_free(list, n);
	return found;
}

json_t *call_domain_names(struct call *c, const struct space *sp)
{
	struct domain *list = NULL;
	struct err err = ERR_INIT;
	json_t *names = json_array();
	size_t n = 0;

	if (store_domain_list(c->a->parts.store, sp->id, &list, &n, &err) == 0)
		for (size_t i = 0; i < n; i++)
			json_array_append_new(names, json_string(list[i].host));
	store_domains_free(list, n);
	return names;
}
