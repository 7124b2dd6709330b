/* Percent-decoding and query strings (RFC 3986 §2.1, application/x-www-form-urlencoded). */
#ifndef SPACED_HTTP_URL_H
#define SPACED_HTTP_URL_H

#include <stdbool.h>

#include "base/buf.h"

/* Appends `s` decoded; `out->data` is a string afterwards, also when nothing was added. `plus`: '+' is a space (queries
 * and forms, never paths). False on a broken escape or a NUL; then `out` has an unspecified tail. */
bool url_decode(struct str s, bool plus, struct buf *out);
/* Appends `s` with everything but unreserved characters (and '/' when `slash`) escaped. */
void url_encode(const char *s, size_t n, bool slash, struct buf *out);
/* The first value of `key` in "a=1&b=2", appended decoded to `out`. False: not there, or broken. */
bool url_query_get(struct str query, const char *key, struct buf *out);
/* Walks the pairs: gives the next one (still encoded) and moves `rest` behind it; false at the end. */
bool url_query_next(struct str *rest, struct str *key, struct str *value);

#endif
