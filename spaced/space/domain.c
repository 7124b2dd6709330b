/* Host names of a Space's own: who has which, and that their routes are those of the Space (route.c). */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/domain.h"
#include "spaced/space/internal.h"

#define DOMAINS_MAX 50 /* of one Space */

/* Nobody else's name may be below one's wildcard, nor the other way round. */
static int check_free(struct spaces *s, const char *space_id, const char *host, struct err *err)
{
	struct domain *list = NULL;
	size_t n = 0, own = 0;
	int rc = store_domain_list(s->store, NULL, &list, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++) {
		bool mine = strcmp(list[i].space_id, space_id) == 0;
		own += mine;
		if (strcmp(list[i].host, host) == 0)
			rc = err_text(err, EEXIST, "%s is a domain of %s already", host,
				      mine ? "this Space" : "another Space");
		else if (!mine && (domain_covers(list[i].host, host) || domain_covers(host, list[i].host)))
			rc = err_text(err, EEXIST, "%s overlaps with a domain of another Space", host);
	}
	store_domains_free(list, n);
	if (rc == 0 && own >= DOMAINS_MAX)
		rc = err_text(err, EINVAL, "a Space has at most %d domains", DOMAINS_MAX);
	return rc;
}

int spaces_domain_add(struct spaces *s, const char *space_id, const char *text, char host[DOMAIN_MAX + 1],
		      struct err *err)
{
	if (domain_check(text, s->config->domain, host, err) < 0 || check_free(s, space_id, host, err) < 0 ||
	    store_domain_add(s->store, space_id, host, err) < 0)
		return -1;
	route_publish_now(s, space_id);
	return 0;
}

int spaces_domain_remove(struct spaces *s, const char *space_id, const char *text, char host[DOMAIN_MAX + 1],
			 struct err *err)
{
	struct err ignored = ERR_INIT;

	/* One that a change of the configuration has made unfit can be removed as well. */
	if (domain_check(text, s->config->domain, host, &ignored) < 0)
		snprintf(host, DOMAIN_MAX + 1, "%.*s", DOMAIN_MAX, text);
	if (store_domain_remove(s->store, space_id, host, err) < 0)
		return -1;
	router_remove(s->router, host);
	return 0;
}

/* For each of the Space's that is fit to be served. */
static void each_domain(struct spaces *s, const char *space_id,
			void (*act)(struct spaces *s, const char *host, void *ctx), void *ctx)
{
	struct domain *list = NULL;
	struct err err = ERR_INIT;
	char host[DOMAIN_MAX + 1];
	size_t n = 0;

	if (store_domain_list(s->store, space_id, &list, &n, &err) < 0)
		log_error("domains of %s: %s", space_id, err.msg);
	for (size_t i = 0; i < n; i++) {
		if (domain_check(list[i].host, s->config->domain, host, &err) == 0)
			act(s, host, ctx);
		else
			log_warn("%s: its domain %s is not served: %s", list[i].space, list[i].host, err.msg);
	}
	store_domains_free(list, n);
}

static void set_route(struct spaces *s, const char *host, void *ctx)
{
	struct route *r = ctx;

	snprintf(r->host, sizeof r->host, "%s", host);
	router_set(s->router, r);
}

void domain_routes_set(struct spaces *s, const char *space_id, struct route *r)
{
	each_domain(s, space_id, set_route, r);
}

static void remove_route(struct spaces *s, const char *host, void *ctx)
{
	(void)ctx;
	router_remove(s->router, host);
}

void domain_routes_remove(struct spaces *s, const char *space_id)
{
	each_domain(s, space_id, remove_route, NULL);
}
