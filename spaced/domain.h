/* Host names that people bring for a Space: how they are written, and which of them are none of theirs. Pure. */
#ifndef SPACED_DOMAIN_H
#define SPACED_DOMAIN_H

#include <stdbool.h>

#include "base/err.h"

#define DOMAIN_MAX 253 /* RFC 1035 2.3.4, as it is written; with "*." before it too */

/* "Bücher.Example.", "*.example.org" -> "xn--bcher-kva.example", "*.example.org": A-labels in lower case (IDNA2008, UTS 46).
 * Refused with a sentence: what is no host name or an address, a name at or below `apex` (those are our own), a wildcard that
 * covers it, one directly below a top-level domain. */
int domain_check(const char *text, const char *apex, char out[DOMAIN_MAX + 1], struct err *err);
/* Do all names of `host` belong to `pattern`? Both as domain_check() writes them; either may be a wildcard. */
bool domain_covers(const char *pattern, const char *host);

#endif
