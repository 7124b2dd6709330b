/* Finds what a request for a site asks for and decides the answer: everything that may block, so it runs on a worker
 * thread and touches nothing of the loop. */
#ifndef SPACED_STATIC_LOOKUP_H
#define SPACED_STATIC_LOOKUP_H

#include "spaced/static/pack.h"
#include "spaced/static/path.h"
#include "spaced/static/site.h"

struct lookup {
	/* in: copies, because the request may end before the worker does */
	int sites_fd;
	char *id;
	struct buf path; /* decoded, see static_path() */
	bool slash;
	bool hidden; /* not to be served, whether it is there or not */
	struct str method, query, if_match, if_none_match, if_modified_since, range, if_range, accept_encoding;

	/* out */
	int status;
	struct site *site;
	const char *type;
	char *location, *content_range;
	char etag[96], last_modified[32];
	const char *cache_control, *encoding;
	bool vary, ranges;
	struct blob *blob; /* the body: these bytes, or ... */
	int fd;		   /* ... these of a file */
	uint64_t offset, length;
};

void lookup_init(struct lookup *l);
void lookup_run(struct lookup *l);
void lookup_release(struct lookup *l);

#endif
