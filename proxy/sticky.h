/* Stickiness: a cookie by which a visitor's requests keep to one instance of an app. Its value is a keyed hash: it says nothing of
 * the place and cannot be made up. One that is unknown here, or whose instance is gone, counts as none. Pure. */
#ifndef PROXY_STICKY_H
#define PROXY_STICKY_H

#include "proxy/http1.h"

#define STICKY_VALUE 33 /* 32 hex digits and NUL */

/* `key`: 16 to 64 characters. */
void sticky_value(const char *key, const char *name, uint32_t generation, char out[STICKY_VALUE]);
/* The value that the request brings for one of the target's endpoints; else the first that could be one; else "".
 * `secure`: which of the two names counts. */
void sticky_find(const struct http1_request *r, const struct target *t, bool secure, char out[STICKY_VALUE]);
/* The endpoint of that value, -1: none. */
int sticky_endpoint(const struct target *t, const char *value);
/* A header line for a response. Lax: also from links of other sites; HttpOnly: no script of the app has a use for it. */
void sticky_set_cookie(const char *value, bool secure, struct buf *out);

#endif
