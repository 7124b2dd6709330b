/* The keys that tickets are signed with (proxy/ticket.h). One secret of 32 bytes in the file access.key beside the database (0600)
 * outlives restarts; the keys of each day are derived from it, and those of today and yesterday hold. The proxies get derived
 * keys by a frame and never see a file. */
#ifndef SPACED_ACCESS_H
#define SPACED_ACCESS_H

#include <uv.h>

#include "proxy/ticket.h"
#include "spaced/config.h"
#include "spaced/router.h"

struct access_keys;
/* Gives the router its keys, now and each day. NULL with err. */
struct access_keys *access_keys_new(uv_loop_t *loop, const struct config *config, struct router *router,
				    struct err *err);
void access_keys_free(struct access_keys *k); /* needs the loop to run once more; NULL is fine */
/* A new secret: no ticket for a Space that was made before is valid any more. Sessions of the apex stay, since they hang on
 * their token. */
int access_keys_renew(struct access_keys *k, struct err *err);
void access_expel(struct access_keys *k, const char *user_id); /* router_expel() */
/* `subject`, `user`: 24 hex digits; "" for root. */
void access_ticket_make(const struct access_keys *k, enum ticket_kind kind, const char *subject, const char *user,
			unsigned seconds, char out[TICKET_TEXT]);
bool access_session_read(const struct access_keys *k, struct str text, struct ticket *out);
bool access_secure(const struct access_keys *k); /* people come by https */

#endif
