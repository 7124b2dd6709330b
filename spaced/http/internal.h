/* What the files of spaced/http share: a connection, its one request, and who may free what.
 *
 * Lifetimes, in one place: a connection is freed only in the close callback of its pipe, which libuv runs from the loop,
 * never inside one of our calls. A request is freed only right after its on_close, which is called from that close
 * callback or from conn_advance(), itself only ever called from the loop. So nothing a handler calls can free what it holds. */
#ifndef SPACED_HTTP_INTERNAL_H
#define SPACED_HTTP_INTERNAL_H

#include <llhttp.h>

#include "spaced/http/server.h"

#define HTTP_DRAIN_LEVEL (256U * 1024) /* on_drain fires below */
#define HTTP_READ_SIZE (64U * 1024)
#define HTTP_PIPELINED_MAX (16U * 1024) /* unread bytes of next requests; reading stops above */
#define HTTP_TRAILER_MAX (16U * 1024)	/* bytes of trailer fields, which are dropped */
#define HTTP_DISCARD_MAX (1024U * 1024) /* rest of a body nobody wants, read to keep the connection */
#define HTTP_LINGER_MS 5000

struct field {
	uint32_t name, name_len; /* offsets into http_req.head */
	uint32_t value, value_len;
};

struct http_req {
	struct http_conn *c;

	/* head */
	struct buf head; /* the target, then names and values, one after the other */
	uint32_t target_len;
	struct field *fields;
	size_t nfields;
	bool in_value; /* the last field has begun its value */
	bool head_done, announced, http11, is_head, expect_continue, keep_alive;
	int bad_head; /* status to answer instead of announcing it, 0: none */
	struct str method, path, query;
	bool has_length;
	uint64_t length; /* Content-Length */

	struct http_client *client; /* whose it is, where they are counted */

	/* body */
	struct buf body;   /* parsed, not delivered; at most one read's worth */
	uint64_t received; /* body bytes parsed */
	bool paused, complete, end_delivered;
	struct http_body_cb body_cb;
	void *body_ctx;
	struct {
		struct buf data;
		size_t max;
		void (*done)(struct http_req *r, struct str body, void *ctx);
		void *ctx;
	} collect;

	/* answer */
	struct buf headers; /* set by http_set_header */
	bool begun, ended;
	bool mute;	       /* answered by the server itself: what the handler says is dropped */
	bool chunked, no_body; /* no_body: HEAD, 204, 304 */
	bool sized;
	uint64_t left; /* of a sized answer */
	size_t drain_level;
	bool above; /* pending was above the drain level */
	void (*drain_cb)(struct http_req *r, void *ctx);
	void *drain_ctx;
	void (*close_cb)(struct http_req *r, void *ctx);
	void *close_ctx;
};

struct http_conn {
	uv_pipe_t pipe;
	struct http_server *s;
	struct http_conn *prev, *next;
	struct http_conn *kick_next;
	bool kicked;
	bool admin;
	uid_t uid;

	llhttp_t parser;
	struct buf in;	      /* read, not parsed: later requests */
	struct http_req *req; /* the current one; NULL between requests and while the rest of a body is dropped */
	bool in_message;      /* the parser is inside a message */
	bool complete;	      /* ... and has paused at its end, until the request is over */
	uint64_t discarded, trailer;

	struct buf out;	   /* to be sent */
	struct buf flight; /* being sent */
	uv_write_t write;
	bool writing;

	bool reading, eof, closing;
	bool close_after; /* close when everything is sent */
	bool lingering;	  /* our side is shut down; the rest of a body is read so that the peer gets to our answer */
	uv_shutdown_t shutdown;
	uint64_t active; /* last progress, loop time */
	size_t queued;	 /* write queue at the last look */
};

struct http_listener {
	uv_pipe_t pipe;
	struct http_server *s;
	struct http_listener *next;
	bool admin;
	bool waiting; /* a connection waits for a free place */
};

struct http_server {
	uv_loop_t *loop;
	struct http_handler handler;
	void *ctx;
	struct http_limits limits;
	llhttp_settings_t settings;
	struct http_listener *listeners;
	struct http_conn *conns;
	unsigned nconns;
	struct http_client *clients;
	struct http_conn *kicks; /* connections to look at before the next poll */
	uv_idle_t kick;
	uv_timer_t sweep;
	unsigned handles; /* open ones; the server is freed with the last */
	bool closing, draining;
	void (*drained)(void *ctx); /* once, when the last connection has gone */
	void *drained_ctx;
	char *read_buf; /* shared: filled and emptied within one read callback */
	uint64_t date_second;
	char date[32];
};

/* server.c */
void server_kick(struct http_server *s); /* makes the list of kicked connections be looked at */
void server_handle_closed(struct http_server *s);
void server_conn_closed(struct http_conn *c);
const char *server_date(struct http_server *s);

/* conn.c */
void conn_start(struct http_conn *c);
void http_conn_close(struct http_conn *c);
void conn_kick(struct http_conn *c);	/* conn_advance soon, from the loop */
void conn_advance(struct http_conn *c); /* does whatever can be done now */
void conn_sweep(struct http_conn *c, uint64_t now);

/* clients.c */
bool client_enter(struct http_req *r); /* its head is there. False: too many of its client are under way */
void client_leave(struct http_req *r); /* it is over */

/* parse.c */
void parse_settings(llhttp_settings_t *settings);
void parse_reset(struct http_conn *c);
/* Consumes bytes up to the end of the current message. False: malformed; *status and *why say what to answer. */
bool parse_bytes(struct http_conn *c, const char *p, size_t n, size_t *used, int *status, const char **why);

/* reply.c: the server's own answer; from here on the handler's calls are dropped, and the connection ends with it. */
void reply_own_error(struct http_req *r, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void req_free(struct http_req *r);

#endif
