/* What header*.c share. */
#ifndef SPACED_SPACE_HEADER_IMPL_H
#define SPACED_SPACE_HEADER_IMPL_H

#include "spaced/space/header.h"

/* A sentence more into c->warnings, unless there are enough. */
void header_warn(struct card *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* header_yaml.c: `block` as an object, an empty one when it is empty. A key that is there twice is warned about. -1: no YAML
 * mapping, or beyond the bounds; err says the line in README.md, of which the block begins on the second. */
int header_yaml(struct str block, struct card *c, json_t **out, struct err *err);
/* Digits with or without a sign, as many as fit in 64 bits. */
bool header_is_int(const char *s);

#endif
