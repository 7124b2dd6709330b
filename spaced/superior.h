/* What control asks of the parent (LINK_RELOAD, LINK_UPGRADE of role.h) and is answered later. */
#ifndef SPACED_SUPERIOR_H
#define SPACED_SUPERIOR_H

#include <stdbool.h>

#include "base/channel.h"
#include "spaced/role/role.h"

struct superior;
/* `text`: what was done, or why not; lives during the call only. */
typedef void (*superior_cb)(void *ctx, bool done, const char *text);

struct superior *superior_new(struct channel *parent); /* which outlives it */
void superior_free(struct superior *s);		       /* nobody is answered any more */
void superior_ask(struct superior *s, enum link_verb verb, superior_cb answered, void *ctx);
void superior_forget(struct superior *s, void *ctx); /* no answer to that one; no-op when there is none to come */
void superior_answered(struct superior *s, const struct frame *f); /* a LINK_ANSWER */

#endif
