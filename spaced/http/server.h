/* An HTTP/1.1 server on libuv + llhttp for the roles behind the proxy: control (API, pages, git) and static. It listens
 * on unix sockets; its only clients are our proxies (which re-serialise each request head) and spacectl.
 * One request at a time per connection; keep-alive; streamed bodies both ways with back-pressure. */
#ifndef SPACED_HTTP_SERVER_H
#define SPACED_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>
#include <uv.h>

#include "base/buf.h"

struct http_server;
struct http_req; /* valid from on_request until on_close */

struct http_handler {
	/* The head is there. Set callbacks on the request, answer now or later. */
	void (*on_request)(struct http_req *r, void *ctx);
};

struct http_server *http_server_new(uv_loop_t *loop, const struct http_handler *h, void *ctx);
/* `fd`: a listening unix stream socket, taken over. `admin`: callers are checked by SO_PEERCRED and marked as such. */
int http_server_listen(struct http_server *s, int fd, bool admin); /* 0 or negative errno */
/* Beyond `connections` new ones wait in the listen queue. 0 in a field: keep the default. */
struct http_limits {
	uint32_t head_bytes;  /* 64 KiB; 431 */
	uint32_t fields;      /* 128; 431 */
	uint32_t connections; /* 4096 */
	uint32_t per_client;  /* requests under way of one http_client(), IPv6 by /64; not of loopback; no limit; 429 */
	uint32_t idle_ms;     /* between requests, 120 s */
	uint32_t head_ms;     /* for one head, 20 s; 408 */
	uint32_t body_ms;     /* without a byte of a body we wait for, 120 s; 408 */
	uint32_t write_ms;    /* without a byte taken by the peer, 120 s */
};
void http_server_limits(struct http_server *s, const struct http_limits *limits);
/* Takes no new connection: they wait in the listening sockets, which others hold too. Each answer from here on is the last of its
 * connection. `done` (or NULL) when no connection is left, perhaps at once. */
void http_server_drain(struct http_server *s, void (*done)(void *ctx), void *ctx);
void http_server_free(struct http_server *s); /* closes everything; needs the loop to run once more */

/* The request. Strings live until on_close. */
struct str http_method(const struct http_req *r);
struct str http_path(const struct http_req *r);	 /* as sent: not decoded, without the query */
struct str http_query(const struct http_req *r); /* without '?', "" */
bool http_header(const struct http_req *r, const char *name, struct str *out);	 /* first of that name, case folded */
bool http_query_get(const struct http_req *r, const char *key, struct buf *out); /* percent-decoded */
uid_t http_peer_uid(const struct http_req *r);	  /* admin sockets: the caller; else (uid_t)-1 */
struct str http_client(const struct http_req *r); /* address of the client as the proxy says */
struct str http_host(const struct http_req *r);	  /* as the client sent it (X-Forwarded-Host, else Host), with port */

/* Body. Without set callbacks a body is read and dropped; to set them later, http_pause() in on_request. After the end of
 * the answer no more of it is delivered. Callbacks always come from the loop, never from inside a call of this header. */
struct http_body_cb {
	void (*data)(struct http_req *r, const char *p, size_t n, void *ctx);
	void (*end)(struct http_req *r, void *ctx);
};
void http_on_body(struct http_req *r, struct http_body_cb cb, void *ctx);
void http_pause(struct http_req *r); /* stop reading from the peer */
void http_resume(struct http_req *r);
/* Collects the body, then calls `done`; beyond `max` 413 is answered by itself and only on_close follows. */
void http_collect(struct http_req *r, size_t max, void (*done)(struct http_req *r, struct str body, void *ctx),
		  void *ctx);

/* The peer is gone or the answer has been sent: last call for this request. Exactly once, never from inside a call of
 * this header. Between the peer's end and this call everything below is a harmless no-op. */
void http_on_close(struct http_req *r, void (*cb)(struct http_req *r, void *ctx), void *ctx);

/* Answer. Header names and values are checked: a CR, LF or NUL in one ends the process (a bug of ours). The same name
 * twice gives two fields. Date, Content-Length, Transfer-Encoding and Connection are added here. */
void http_set_header(struct http_req *r, const char *name, const char *value_fmt, ...)
    __attribute__((format(printf, 3, 4)));
void http_reply(struct http_req *r, int status, const char *content_type, const void *body, size_t n);
void http_reply_error(struct http_req *r, int status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5))); /* {"error":"..."}; X-Error-Code (NULL: none), X-Error-Message */
/* Streaming: length < 0 means chunked. */
void http_begin(struct http_req *r, int status, const char *content_type, ssize_t length);
void http_write(struct http_req *r, const void *p, size_t n);
void http_end(struct http_req *r); /* bytes missing to `length`: the connection is cut, so that the client sees it */
/* Gives up: cuts the connection, so that the client sees a broken answer, never a short one that looks whole. */
void http_abort(struct http_req *r);
/* Bytes accepted by http_write and not yet sent; on_drain fires when it falls below 256 KiB (or the level set here). */
void http_drain_level(struct http_req *r, size_t bytes);
size_t http_pending(const struct http_req *r);
void http_on_drain(struct http_req *r, void (*cb)(struct http_req *r, void *ctx), void *ctx);
bool http_begun(const struct http_req *r); /* an answer has begun */

/* Admin sockets only: answers "101 Switching Protocols" to `protocol` with descriptors beside the head (SCM_RIGHTS, at most
 * HTTP_HAND_OVER; they stay the caller's) and ends the connection: what follows goes another way. 0, or negative errno
 * with nothing answered. */
#define HTTP_HAND_OVER 8
int http_hand_over(struct http_req *r, const char *protocol, const int *fds, int n);
/* The client asks for that protocol (RFC 9110 §7.8). */
bool http_wants_upgrade(const struct http_req *r, const char *protocol);

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 §5.6.7). */
void http_date(time_t t, char out[32]);

#endif
