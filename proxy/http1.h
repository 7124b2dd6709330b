/* HTTP/1 policy: the pure module between llhttp and everything else. Bytes of a head become fields, the fields are judged
 * by the rules below, and what may pass is written anew: no byte of a head is ever forwarded as it came.
 * No I/O, no allocation, no state but what the caller holds; fuzzed and table-tested alone.
 * Rules: RFC 9110/9112 and where named in the code the attacks behind them. */
#ifndef PROXY_HTTP1_H
#define PROXY_HTTP1_H

#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "proxy/route.h"

#define HTTP1_FIELDS_MAX 256
#define HTTP1_REQUEST_ID_MAX 64

struct http1_limits {
	uint32_t head_bytes;
	uint32_t fields; /* at most HTTP1_FIELDS_MAX */
	uint32_t url_bytes;
};

enum http1_method { HTTP1_GET = 1, HTTP1_HEAD, HTTP1_POST, HTTP1_PUT, HTTP1_PATCH, HTTP1_DELETE, HTTP1_OPTIONS };
enum http1_body { HTTP1_NO_BODY, HTTP1_LENGTH, HTTP1_CHUNKED, HTTP1_UNTIL_CLOSE };

struct http1_field {
	struct str name, value; /* into the head; the value without white space around it */
};

/* What is said in fields of one name that are not passed on; of many the last ones. */
#define HTTP1_CLAIMS_MAX 8
struct http1_claims {
	struct str values[HTTP1_CLAIMS_MAX];
	size_t n;
};

/* All strings point into the head that was parsed. */
struct http1_request {
	enum http1_method method;
	struct str method_name;
	struct str target;	       /* origin-form, or "*" */
	struct str authority;	       /* host[:port] as sent, for the Host field that is forwarded */
	char host[ROUTE_HOST_MAX + 1]; /* canonical */
	uint8_t minor;		       /* HTTP/1.minor */
	enum http1_body body;
	uint64_t length;
	bool has_length; /* "Content-Length: 0" is passed on as such */
	bool keep_alive; /* what the client wants */
	bool expect_continue;
	bool websocket;					    /* a correct WebSocket handshake */
	struct str accept;				    /* all that matters of it: the first Accept field */
	struct str user_agent;				    /* the first one */
	struct str request_id;				    /* the client's own when it is harmless, else empty */
	struct http1_claims forwarded_for, forwarded_proto; /* of X-Forwarded-For, X-Forwarded-Proto: trusted.h */
	struct http1_field fields[HTTP1_FIELDS_MAX];	    /* those that are passed on */
	size_t nfields;
	const char *why; /* after a refusal: which rule, for people */
};

struct http1_response {
	uint16_t status;
	uint8_t minor;
	struct str reason;
	enum http1_body body;
	uint64_t length;
	bool has_length;   /* with HTTP1_NO_BODY: the Content-Length to show (HEAD, 304) */
	bool keep_alive;   /* the upstream connection can be used again, after the body */
	bool upgrade;	   /* 101 to a WebSocket, complete and asked for */
	bool event_stream; /* text/event-stream */
	bool has_date, has_request_id;
	struct http1_field fields[HTTP1_FIELDS_MAX];
	size_t nfields;
	const char *why;
};

/* Finds the end of a head in `p`, of which the first `seen` bytes were looked at before. >0: bytes of the head with its
 * empty line; 0: not there yet; -EBADMSG: a line feed without carriage return, refuse at once. */
ssize_t http1_head_end(const char *p, size_t n, size_t seen);

/* Parses and judges one whole request head. 0, or the status to refuse with (400, 405, 414, 417, 431, 501, 505), and
 * then the connection must be closed after the answer. */
int http1_parse_request(const char *p, size_t n, const struct http1_limits *limits, struct http1_request *r);

/* What the proxy says about the request to the app. */
struct http1_forward {
	struct str client; /* address of the client, an IPv6 one without brackets */
	const char *proto; /* "http", "https" */
	uint16_t port;	   /* for X-Forwarded-Port when the Host field names none */
	struct str request_id;
	const char *site; /* "" or the X-Spaced-Site */
};
void http1_write_request(const struct http1_request *r, const struct http1_forward *f, struct buf *out);

/* False: no response begins with these bytes, however many are to come. */
bool http1_begins_response(const char *p, size_t n);

/* Parses and judges a response head to `method`; `websocket`: the request was an upgrade. 0, or -EBADMSG: 502.
 * Status 1xx (without 101) comes out with HTTP1_NO_BODY and is to be skipped. */
int http1_parse_response(const char *p, size_t n, enum http1_method method, bool websocket,
			 const struct http1_limits *limits, struct http1_response *r);

struct http1_reply {
	uint8_t client_minor;  /* version of the client */
	bool keep_alive;       /* the client's connection stays */
	enum http1_body body;  /* framing towards the client */
	const char *headers;   /* "" or "Name: value\r\n"... that replace the app's */
	struct str request_id; /* added when the app sent none */
	const char *date;      /* the same */
	struct str cookie;     /* empty, or a Set-Cookie line beside the app's own */
};
void http1_write_response(const struct http1_response *r, const struct http1_reply *how, struct buf *out);

/* The chunked coding, read strictly by llhttp. Extensions and trailers are counted and dropped. */
#define HTTP1_SPANS 16
struct http1_chunked {
	llhttp_t parser;
	struct str *spans;
	size_t nspans;
	const char *last; /* end of the last body span in this call */
	uint32_t extension, overhead;
	char before; /* the byte before this call's first, when it is none of the body */
	bool named;  /* the trailer that is being read */
	bool done, bad;
};
void http1_chunked_init(struct http1_chunked *c);
/* Decodes (in place) until `n` bytes are used up or the body ends; at most HTTP1_SPANS runs of body bytes come out.
 * Returns the bytes used, or -EBADMSG. c->done: the body is complete. */
ssize_t http1_chunked_decode(struct http1_chunked *c, char *p, size_t n, struct str spans[HTTP1_SPANS], size_t *nspans);

#endif
