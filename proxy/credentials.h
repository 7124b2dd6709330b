/* What a request brings to open a private Space, found and taken out of it: an app sees none of it. Pure; fuzzed.
 *
 * - our cookie: any number of Cookie fields and of cookies by our name; all are looked at (at most CREDENTIALS_COOKIES) and all are
 *   taken out, and those that keep a visitor to an instance (sticky.h) as well. It counts only for requests of the Space's own pages: every other Space is of the same site for a browser, so
 *   SameSite alone would let a neighbour's page act, or open a WebSocket, as the visitor.
 * - `__sign=TICKET` in the query, taken out
 * - `x-hf-authorization: Bearer TOKEN`, always taken out
 * - `Authorization: Bearer TOKEN`: stays for the app, unless it is what opens the Space (credentials_drop_authorization)
 *
 * Each of the last three twice: `ambiguous`, to be refused. */
#ifndef PROXY_CREDENTIALS_H
#define PROXY_CREDENTIALS_H

#include "proxy/cookies.h"
#include "proxy/http1.h"

#define CREDENTIALS_COOKIES 4

struct credentials {
	struct str cookies[CREDENTIALS_COOKIES]; /* values */
	size_t ncookies;
	struct str sign;       /* .p NULL: none */
	struct str hf, bearer; /* tokens, without "Bearer"; .p NULL: none */
	bool ambiguous;
	bool own_page;	 /* cookies count */
	bool navigation; /* a person opens a page */
};
/* `secure`: which of the two names counts; both are taken out. What has to be written anew is written to `scratch`, to which
 * `r` points afterwards; `c` points into the head. */
void credentials_take(struct http1_request *r, bool secure, struct buf *scratch, struct credentials *c);
void credentials_drop_authorization(struct http1_request *r);
/* Drops each Set-Cookie of an app that names a cookie of ours, with or without prefix. */
void credentials_guard(struct http1_response *r);

#endif
