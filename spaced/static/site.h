/* What site.json says about a site, cached. Called on worker threads of the static role. */
#ifndef SPACED_STATIC_SITE_H
#define SPACED_STATIC_SITE_H

#include <stdbool.h>
#include <stddef.h>

struct site_field {
	char *name, *value;
};

struct site {
	char *root;	/* folder below files/ that is served, "" for all */
	char *index;	/* of the root folder */
	char *redirect; /* where "/" leads, NULL: nowhere */
	struct site_field *headers;
	size_t nheaders;
	bool own_cache_control; /* among the headers */
	int refs;		/* site.c's lock */
};

/* NULL: there is no such site. Else to be given back. */
struct site *site_get(int sites_fd, const char *id);
void site_put(struct site *site);
/* What is wrong in it is left out. Never NULL; released by site_put. */
struct site *site_parse(const char *json, size_t n);
void site_cache_clear(void);

#endif
