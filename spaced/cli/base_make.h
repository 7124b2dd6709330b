/* Making a base image (sandbox/base.h): where it comes from, the installation in namespaces of its own
 * (sandbox/bootstrap.h), what is added, and the commit. Root only; needs no running daemon. Called by `spacectl base create`. */
#ifndef SPACED_CLI_BASE_MAKE_H
#define SPACED_CLI_BASE_MAKE_H

#include <jansson.h>

#include "base/err.h"

struct base_wish {
	const char *state;    /* the daemon's state folder */
	const char *name;     /* checked */
	const char *suite;    /* NULL: the host's own release */
	const char *variant;  /* NULL: "full" */
	const char *packages; /* more of them, separated by commas or blanks; or NULL */
	const char *mirror;   /* URL; NULL: as the host's apt */
};

/* Progress goes to stderr. `record`: what was written about it. Interrupted by a signal: EINTR, and nothing is left. */
int base_make(const struct base_wish *wish, json_t **record, struct err *err);

#endif
