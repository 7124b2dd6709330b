/* The deciders of the static role: what a request path, its conditions and its Accept-Encoding mean. Pure; no file is
 * touched here (tests/unit/test_static_path.c, tests/fuzz/fuzz_static_path.c). */
#ifndef SPACED_STATIC_PATH_H
#define SPACED_STATIC_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* The id of a site, which becomes a folder name: 1..64 of [A-Za-z0-9_-]. */
bool site_id_ok(struct str id);
/* A relative path from site.json ("dist", "pages/a.html"): no empty, "." or ".." elements, not absolute. "" is fine. */
bool site_path_ok(const char *path);

/* Decodes the path of a request into one relative to the site ("" is its root, without slash at either end). 0, or the
 * HTTP status to answer: 400 (NUL, "..", an encoded slash, broken escape), 404 (dot files, empty elements). */
int static_path(struct str raw, struct buf *out, bool *slash);

/* A name that carries a hash of its content, for certain: it may be cached forever. */
bool static_immutable(const char *path);

enum coding { CODING_NONE, CODING_GZIP, CODING_BR };
/* The best of what the client takes (RFC 9110 §12.5.3), br before gzip at the same weight. */
enum coding static_coding(struct str accept_encoding);

/* True when `list` (If-None-Match, If-Match) has `etag` (with its quotes) or is "*". Weak: W/ is ignored. */
bool static_etag_in(struct str list, const char *etag, bool weak);

enum range { RANGE_NONE, RANGE_ONE, RANGE_BAD };
/* One byte range (RFC 9110 §14.2). NONE: ignore it (malformed, another unit, several); BAD: 416. */
enum range static_range(struct str value, uint64_t size, uint64_t *first, uint64_t *length);

#endif
