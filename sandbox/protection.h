/* What protects apps from each other and the host from apps, as far as this host gives it: one table, which the daemon's log
 * at start, `spacectl doctor` and `sandbox probe` show. What is missing is never dropped silently. */
#ifndef SANDBOX_PROTECTION_H
#define SANDBOX_PROTECTION_H

#include "sandbox/sandbox.h"

struct protection {
	const char *name;
	bool (*is)(const struct sandbox_host *h); /* whether this row is how things stand; NULL: always */
	const char *given;			  /* what there is; NULL when it is missing */
	const char *lost;			  /* what does not hold then */
	const char *mend;			  /* what would give it */
	bool needed;				  /* without it nothing can run */
};

#define PROTECTIONS 16 /* at most */

/* How each stands on this host, in the order of the table; returns their number. */
size_t protections_of(const struct sandbox_host *h, const struct protection *out[PROTECTIONS]);

#endif
