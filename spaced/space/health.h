/* Is an instance up? GET / over a socket made inside its network namespace, until one answer has a status below 500.
 * Never HEAD: frameworks answer 405 or worse (hf-spaces: complaint 2). */
#ifndef SPACED_SPACE_HEALTH_H
#define SPACED_SPACE_HEALTH_H

#include "spaced/space/place.h"

struct health;
enum health_news {
	HEALTH_OK,
	HEALTH_TIMEOUT, /* text: why it was never healthy */
	HEALTH_HINT,	/* text: what may be wrong; probing goes on */
};
/* Not called from within health_begin. After OK and TIMEOUT nothing more comes; free it then. */
typedef void (*health_cb)(void *ctx, const char *name, enum health_news news, const char *text);
/* `host`: the Host to send. */
struct health *health_begin(uv_loop_t *loop, struct place *place, const char *name, const char *host, uint16_t port,
			    uint32_t timeout_s, health_cb cb, void *ctx);
void health_free(struct health *h); /* NULL is fine; no callback after this */

#endif
