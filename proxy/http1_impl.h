/* What http1*.c share: the walk of llhttp over one head, field names that mean something, list syntax. */
#ifndef PROXY_HTTP1_IMPL_H
#define PROXY_HTTP1_IMPL_H

#include "proxy/http1.h"

/* Fields with a meaning for the proxy. Those after FIELD_DROPPED are never passed on. */
enum known_field {
	FIELD_OTHER,
	FIELD_ACCEPT,
	FIELD_USER_AGENT,
	FIELD_DATE,
	FIELD_CONTENT_TYPE,
	FIELD_WEBSOCKET_KEY,
	FIELD_WEBSOCKET_VERSION,
	FIELD_WEBSOCKET_ACCEPT,
	FIELD_DROPPED,
	FIELD_HOST,
	FIELD_CONTENT_LENGTH,
	FIELD_TRANSFER_ENCODING,
	FIELD_CONNECTION,
	FIELD_UPGRADE,
	FIELD_EXPECT,
	FIELD_REQUEST_ID,
	FIELD_HOP,	  /* hop-by-hop by RFC 9110 7.6.1 */
	FIELD_FORWARDING, /* only the proxy itself says these */
	FIELD_FORWARDED_FOR,
	FIELD_FORWARDED_PROTO,
};
enum known_field http1_known(struct str name);

struct http1_head {
	struct http1_field *fields;
	size_t nfields, max;
	struct str reason; /* of a status line */
	const char *why;
	int status; /* what to refuse a request with */
	llhttp_t parser;
};
/* Runs llhttp over a whole head and collects its fields. 0, or -EBADMSG with why and status set. */
int http1_walk(struct http1_head *h, llhttp_type_t type, const char *p, size_t n);

/* The next element of a comma-separated list; false at its end. */
bool http1_list_next(struct str *list, struct str *item);
bool http1_is_token(struct str s);
struct str http1_trim(struct str s);
/* 1 to 18 digits and nothing else. */
bool http1_length(struct str s, uint64_t *v);
/* `tokens` of a Connection field: is `name` nominated by it? */
bool http1_nominated(const struct str *tokens, size_t n, struct str name);

static inline void http1_add(struct buf *b, struct str s)
{
	buf_add(b, s.p, s.n);
}

static inline bool http1_same(struct str a, struct str b)
{
	return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

#endif
