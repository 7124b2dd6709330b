/* Text of outsiders as a JSON string, for answers that are written by hand. */
#ifndef BASE_JSON_QUOTE_H
#define BASE_JSON_QUOTE_H

#include "base/buf.h"

/* Appends the `n` bytes at `s` with quotes around them. What is not UTF-8 becomes U+FFFD, so that the whole is JSON. */
void json_quote(struct buf *out, const char *s, size_t n);

#endif
