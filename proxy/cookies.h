/* Cookie fields pair by pair (RFC 6265 5.4), and the names that are ours. Pure. */
#ifndef PROXY_COOKIES_H
#define PROXY_COOKIES_H

#include <stdbool.h>

#include "base/buf.h"

/* On https with the prefix __Host-: then no other host can set it (RFC 6265bis 4.1.3.2). */
#define COOKIE_ACCESS "spaced-access"
#define COOKIE_SESSION "spaced-session"
#define COOKIE_INSTANCE "spaced-instance"
#define COOKIE_PREFIX "__Host-"

struct cookie {
	struct str pair, name, value; /* without white space around them */
};
/* Takes the next one off `rest`; false at the end. Empty pairs (";;") come too. */
bool cookie_next(struct str *rest, struct cookie *c);
/* Is it `ours`, with or without the prefix? Browsers do not fold the case of names, but tell prefixes without it. */
bool cookie_is(const struct cookie *c, const char *ours, bool *prefixed);

#endif
