/* Tickets: short signed texts that say "this user may open this Space until then". Made by the control role, and by the proxy as
 * cookies; checked by the proxy alone. Pure. Signed by HMAC-SHA-512/256 (libsodium's crypto_auth), compared in constant time.
 * On the wire: unpadded base64url of version, kind, key id, expiry, subject, user, MAC: one text only for each ticket. */
#ifndef PROXY_TICKET_H
#define PROXY_TICKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/frame.h"

#define TICKET_KEY 32	       /* bytes */
#define TICKET_TEXT 95	       /* with its NUL */
#define TICKET_MAX (24 * 3600) /* seconds that a ticket may be valid */
#define TICKET_ID 25	       /* 24 hex digits and NUL */

enum ticket_kind {
	TICKET_SIGN = 's',    /* `__sign` in an address; the subject is a Space */
	TICKET_COOKIE = 'c',  /* the cookie of a Space's host; the subject is a Space */
	TICKET_SESSION = 'a', /* the cookie of the apex; the subject is the token that was given */
};

struct ticket {
	enum ticket_kind kind;
	uint64_t expires; /* Unix seconds */
	char subject[TICKET_ID], user[TICKET_ID];
};

struct ticket_key {
	uint32_t id;
	unsigned char key[TICKET_KEY];
};

void ticket_make(const struct ticket *t, const struct ticket_key *key, char out[TICKET_TEXT]);
/* False: no ticket, of another kind, tampered with, expired or valid for too long; `out` is then undefined. */
bool ticket_read(struct str text, enum ticket_kind kind, const struct ticket_key *keys, size_t nkeys, uint64_t now,
		 struct ticket *out);
/* 24 lower-case hex digits. */
bool ticket_id_ok(const char *id);

/* What PROXY_KEYS carries. The first key is the one to make tickets with. */
#define TICKET_KEYS 4
struct ticket_keys {
	bool secure;	   /* people come by https */
	char sign_in[300]; /* address of the page where they sign in, without query */
	struct ticket_key keys[TICKET_KEYS];
	size_t nkeys;
};
void ticket_keys_encode(const struct ticket_keys *k, struct buf *b);
int ticket_keys_decode(struct reader *rd, struct ticket_keys *k); /* 0 or -EBADMSG */

#endif
