/* The inside of one proxy process: a worker (one loop) with its clients, exchanges (one request and its response) and
 * upstream connections. Private to proxy/. Single-threaded; functions return 0 or negative errno.
 *
 *   client --(client.c: heads)--> exchange --(pool.c, upstream.c)--> upstream
 *          <---------------- relay.c: bodies both ways ------------->
 *
 * Memory: a client or upstream that is idle holds its struct and nothing else. All reads go into one block of the worker;
 * only a block whose bytes could not be written at once stays attached to that write, and then the other side is not read
 * until it has gone: at most one block per direction. Large bodies do not even come there (conn_splice). */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include <uv.h>

#include <netinet/in.h>
#include <uthash.h>

#include "base/buf.h"
#include "base/channel.h"
#include "proxy/counters.h"
#include "proxy/errpage.h"
#include "proxy/hold_rule.h"
#include "proxy/http1.h"
#include "proxy/proxy.h"
#include "proxy/rate.h"
#include "proxy/route.h"
#include "proxy/route_feed.h"
#include "proxy/sticky.h"

#define BLOCK_SIZE 65536
#define LISTEN_BACKLOG 4096

/* Deadlines are lists in order of arrival, one per kind, since all of a kind wait equally long: O(1) to set and move. */
enum deadline { DL_NONE, DL_HEAD, DL_IDLE, DL_CONNECT, DL_RESPONSE, DL_STALL, DL_LINGER, DL_POOL, DL_KINDS };
struct timed {
	struct timed *prev, *next;
	uint64_t at;
	enum deadline kind;
};

struct block {
	struct block *next;
	char data[BLOCK_SIZE];
};

/* What clients and upstreams have in common. */
struct conn {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	};
	struct timed timed;
	struct worker *w;
	struct buf in;	/* bytes that wait: a head in pieces, or what cannot be used yet */
	size_t seen;	/* of `in`: looked at for the end of the head */
	size_t pending; /* bytes accepted by conn_write and not yet with the kernel */
	bool is_client, reading, eof, shut, closing;
};

struct listener {
	uv_tcp_t tcp;
	struct worker *w;
	uint16_t port;
};

struct client {
	struct conn conn;
	struct exchange *x; /* the request under way, or NULL */
	struct peer *peer;  /* its address in the per-client count, or NULL */
	uint64_t who;	    /* the same among the rates */
	uint16_t port;	    /* it came in on */
	uint8_t addr_len;
	bool feeding, lingering, goodbye; /* goodbye: close when all is written */
	char addr[46];
};

struct upstream {
	struct conn conn;
	struct pool *pool;
	struct exchange *x;	      /* NULL: idle in the pool */
	struct upstream *prev, *next; /* idle list */
	uv_connect_t connect;
	bool connected, reused, pooled; /* pooled: in the idle list */
};

struct exchange {
	struct client *c;
	struct upstream *u;
	struct exchange *prev, *next; /* in pool->waiting or hold->first */
	struct target *target;
	struct pool *pool;
	uint16_t tried;	     /* bits of the endpoints that took no connection */
	uint8_t endpoint;    /* whose the pool is */
	struct space *space; /* w->nobody when its target is of none */
	struct buf head;     /* to the app; kept until the first byte of the response */
	enum http1_method method;
	enum http1_body req_body, res_body, out_body;
	uint64_t req_left, res_left;
	uint64_t body_since, body_bytes, blocked_since; /* minimum rate of a request body */
	uint64_t began;					/* its head had come */
	uint64_t bytes_in, bytes_out;			/* heads included */
	uint16_t status;				/* of the final answer; 0: none yet */
	enum refusal refused;
	struct buf seen;	       /* for the access log: host, path, User-Agent */
	uint16_t seen_host, seen_path; /* how long these are */
	uint64_t sent_at, answered_at; /* its head to the app, and that of the answer; 0: not */
	uint64_t held_at, held_ms;
	bool was_held, woke;
	uint8_t minor, interim;
	enum page_format format;
	bool waiting, head_sent, expect_continue, websocket, keep_alive;
	bool req_done, upload_broken, res_head, res_done, reusable, tunnel, event_stream, retried;
	char request_id[HTTP1_REQUEST_ID_MAX + 1];
	char sticky[STICKY_VALUE]; /* what it brought, "" */
	struct http1_chunked *req_chunked, *res_chunked;
	struct hold *hold;	    /* waits for its app to be there, or NULL */
	struct hold_rule hold_rule; /* of a ROUTE_HOLD, or of what may have become one while control is asked */
	uint64_t hold_until;
	size_t hold_bytes;
	bool hold_page;
	struct ask *ask; /* control is asked whether it may pass */
};

/* Connections to one upstream address, or one generation of one app: never shared between apps. */
struct pool {
	UT_hash_handle hh;
	char *key;
	enum route_kind kind;
	char name[108]; /* of the endpoint */
	uint32_t generation;
	uint16_t port;
	struct upstream *idle;		     /* the last one used first */
	struct exchange *waiting;	     /* for a socket from the spawner */
	size_t nidle, busy, nwaiting, opens; /* busy: exchanges; opens: sockets asked for */
	int spare[16];
	int nspare;
	uint64_t failed_until; /* it took no connection */
	bool draining;
};

struct space {
	UT_hash_handle hh;
	struct counters count; /* since the last PROXY_ACTIVITY */
	uint32_t told[GAUGES]; /* by that one */
	uint64_t who;	       /* among the rates */
	char name[];	       /* owner/name; "": w->nobody */
};

struct worker {
	uv_loop_t loop;
	struct proxy_limits limits;
	struct http1_limits req_limits, res_limits;
	struct route_feed routes;
	struct listener *listeners;
	size_t nlisteners, nclients, nexchanges;
	bool listening;
	bool draining, ending; /* ending: nobody takes over from this worker */
	uint64_t drain_until, activity_at;
	struct block *block, *free_blocks;
	size_t nfree_blocks;
	int pipe[2]; /* conn_splice: empty between calls; -1: cannot be done here */
	struct exchange *free_exchanges;
	struct http1_request req; /* scratch: judged and written within one call */
	struct http1_response res;
	struct buf out;
	struct pool *pools;
	struct space *spaces, *nobody;
	struct access_log *log; /* NULL: none is kept */
	struct peer *peers;
	struct rates *rates;
	struct hold *holds;
	uv_timer_t hold_release;
	uint64_t hold_due; /* the next one is over then */
	struct timed deadlines[DL_KINDS];
	uint32_t deadline_ms[DL_KINDS];
	uv_timer_t tick;
	uv_signal_t sigterm, sigint, sigquit, sighup;
	struct channel *control, *parent, *spawner;
	struct open_call *open_calls;
	uint32_t open_ids;
	struct gate *gate;
	const char *routes_file;
	char sticky[33];
	char id_prefix[17];
	uint64_t dice;
	uint64_t ids, date_at;
	char date[40];
};

/* limits.c: deadlines, connections per client address, rates. */
int limits_init(struct worker *w, const struct proxy_config *config); /* 0 or negative errno */
void deadline_set(struct conn *c, enum deadline kind);
void deadline_clear(struct conn *c);
void deadline_tick(struct worker *w);
/* Counts a new connection; false: there are too many from its address. */
bool peer_enter(struct client *c, const struct sockaddr *sa);
void peer_leave(struct client *c);
/* What counts as one client: the IPv4 address, as a mapped one, or the /64, which one customer owns whole. True: loopback. */
bool peer_key(const struct sockaddr *sa, struct in6_addr *key);
/* Its client asks too fast, or its Space is asked too fast: answered with 429. */
bool limits_refuse(struct exchange *x);

/* conn.c, splice.c: reading into blocks, writing with the rest kept. */
void conn_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf);
void conn_read_start(struct conn *c);
void conn_read_stop(struct conn *c);
/* Writes now what the kernel takes and keeps the rest (c->pending). `bufs` is used up. 0 or negative errno. */
int conn_write(struct conn *c, uv_buf_t *bufs, unsigned n);
void splice_init(struct worker *w);
/* Moves what `from` has received on to `to` inside the kernel: for the bulk of bodies that need no look. Both must have
 * nothing pending or waiting. At most `max` bytes; returns how many, those counted that `to` keeps as pending. -EAGAIN:
 * nothing now, read as usual; -EPIPE: writing failed. */
ssize_t conn_splice(struct conn *from, struct conn *to, uint64_t max);
#define SPLICE_WORTH 16384 /* after a read of so much there is more behind it */
#define SPLICE_TIMES 16	   /* then others have their turn */
/* Ends the sending direction once all is written. */
void conn_shutdown(struct conn *c);
void conn_close(struct conn *c, bool reset);

/* client.c */
void client_accept(uv_stream_t *server, int status);
void client_take(struct listener *l, int fd);		 /* a connection that was accepted from it; taken over */
void client_input(struct client *c, char *p, ssize_t n); /* n < 0: end or error */
void client_resume(struct client *c);			 /* something that blocked its input has changed */
void client_drained(struct client *c);			 /* all pending bytes are with the kernel */
void client_failed(struct client *c);			 /* its connection broke */
void client_cut(struct client *c, bool reset);		 /* ends it in the middle of a response */
void client_timeout(struct client *c, enum deadline kind);
void client_next(struct client *c, bool keep, bool linger); /* its exchange is over */
void client_hurry_idle(struct worker *w); /* from here on whoever has said nothing for a moment is closed */

/* exchange.c */
void exchange_start(struct client *c, size_t head); /* w->req, of so many bytes, was parsed and accepted */
void exchange_dispatch(struct exchange *x);	    /* to where x->target says; its head is written */
void exchange_admitted(struct exchange *x);	    /* the gate is open, x->head written */
void exchange_ready(struct exchange *x);	    /* x->u is connected */
void exchange_send_head(struct exchange *x);
void exchange_page(struct exchange *x, const struct page *page); /* answers by itself, ends the exchange */
void exchange_error(struct exchange *x, int status, const char *title, const char *text);
/* It has no connection in time. False: nor may it have one elsewhere. */
bool exchange_elsewhere(struct exchange *x);
void exchange_upstream_lost(struct exchange *x, int error); /* could not connect, or closed before its time */
void exchange_abort(struct exchange *x);		    /* the client is gone */
void exchange_done(struct exchange *x);			    /* the response is complete */
const char *worker_date(struct worker *w);

/* relay.c: returns bytes used; less than n: blocked or over. The exchange may be gone afterwards. */
size_t relay_request(struct exchange *x, char *p, size_t n);
void relay_response_bytes(struct upstream *u, char *p, size_t n);
void relay_response_eof(struct exchange *x);
void relay_tunnel_eof(struct exchange *x, struct conn *from);

/* upstream.c */
int upstream_connect(struct pool *p, struct exchange *x, int fd); /* fd: from the spawner, or -1 */
void upstream_attach(struct upstream *u, struct exchange *x);
void upstream_close(struct upstream *u);
void upstream_input(struct upstream *u, char *p, ssize_t n);
void upstream_drained(struct upstream *u);
void upstream_broken(struct upstream *u); /* a write to it failed */

/* balance.c */
int balance_pick(const struct exchange *x); /* the endpoint; -1: there is none that was not tried */

/* pool.c */
struct pool *pool_of(struct worker *w, const struct target *t, unsigned endpoint);   /* made when it is not there */
struct pool *pool_find(struct worker *w, const struct target *t, unsigned endpoint); /* NULL: no connections */
void pool_failed(struct worker *w, struct pool *p);
/* Gives the exchange an idle connection or starts to make one; `fresh`: not an idle one. 0 or negative errno. */
int pool_acquire(struct pool *p, struct exchange *x, bool fresh);
void pool_cancel(struct exchange *x); /* it waits no more for a socket */
void pool_put_back(struct upstream *u);
void pool_remove_idle(struct upstream *u);
void pool_leave(struct pool *p); /* one exchange less */
void pool_drain(struct worker *w, const char *instance, uint32_t generation);
void pool_sweep(struct worker *w);
/* Ends what is under way: WebSockets and responses by closing their connections, what has no answer yet by one of ours. */
void pool_cut(struct worker *w, const char *instance, uint32_t generation);
/* Closes idle connections; the number of exchanges that are under way. */
uint32_t pool_quiet(struct worker *w, const char *instance, uint32_t generation);
/* The answer to spawn_open(); -ENOTCONN: the spawner is gone, who waits for a socket goes on to wait. */
void pool_opened(struct pool *p, struct frame *f, size_t asked, int error);
void pool_new_spawner(struct worker *w);

/* spawn.c */
void spawn_attach(struct worker *w, int fd);
void spawn_open(struct worker *w, struct pool *p, uint32_t n); /* no-op without a spawner */

/* control.c */
void control_channel_attach(struct worker *w, int fd);
void parent_channel_attach(struct worker *w, int fd);
void parent_say_listening(struct worker *w);
void control_say_idle(struct worker *w, const char *instance, uint32_t generation);

/* activity.c */
void activity_init(struct worker *w);
static inline void count_in(struct exchange *x, uint64_t n)
{
	x->bytes_in += n;
	x->space->count.n[COUNT_BYTES_IN] += n;
}
static inline void count_out(struct exchange *x, uint64_t n)
{
	x->bytes_out += n;
	x->space->count.n[COUNT_BYTES_OUT] += n;
}
struct space *space_of(struct worker *w, const char *name); /* w->nobody for "" */
void activity_report(struct worker *w);
void activity_forget(struct worker *w); /* a new control: everything is said again */

/* access_log.c */
int access_log_init(struct worker *w, uint32_t sample, const char *path); /* sample 0: no log; path NULL: to control */
void access_log_note(struct exchange *x, const struct http1_request *r);  /* what the line will need of its head */
void access_log_exchange(struct exchange *x);				  /* it is over */
void access_log_refusal(struct client *c, int status, enum refusal why, const char *detail, size_t bytes_out);
void access_log_tick(struct worker *w);
void access_log_sent(struct worker *w); /* a batch has arrived: PROXY_LOGGED */
void access_log_new_control(struct worker *w);
void access_log_reopen(struct worker *w);
void access_log_end(struct worker *w);

/* hold.c */
void hold_init(struct worker *w);
void hold_request(struct exchange *x, struct hold_rule rule); /* x->target is a ROUTE_HOLD; may answer at once */
void hold_cancel(struct exchange *x);			      /* it waits no more; no-op when it does not */
void hold_routes_changed(struct worker *w);
void hold_new_control(struct worker *w);
void hold_tick(struct worker *w);
void hold_end(struct worker *w); /* an orderly end: nobody waits any more */
/* gate.c */
enum gate_state { GATE_OPEN, GATE_ASKING, GATE_CLOSED };
void gate_init(struct worker *w);
/* Takes out of the request what no app is to see, and judges whether it may pass: OPEN; ASKING: exchange_admitted or a refusal
 * follows; CLOSED: answered, the exchange is over. */
enum gate_state gate_enter(struct exchange *x, struct http1_request *r);
void gate_forget(struct exchange *x);				     /* it is over */
bool gate_secure(const struct worker *w);			     /* people come by https */
bool gate_keys(struct worker *w, struct reader *rd);		     /* PROXY_KEYS */
bool gate_verdict(struct worker *w, uint32_t id, struct reader *rd); /* PROXY_VERDICT */
void gate_control_lost(struct worker *w);			     /* who has asked waits for the next one */
void gate_new_control(struct worker *w);
/* After Spaces have become private: WebSockets and event streams of theirs that stand are cut, and requests that are held. */
void gate_cut(struct worker *w);

/* file.c */
int routes_file_load(struct worker *w, const char *path);

/* proxy.c */
void worker_listen(struct worker *w);

/* drain.c */
/* Accepts nothing more and ends when the last client has gone, or after `ms`. `ending`: what is held or idle goes soon; else
 * another worker has taken over, and this one serves who it has. Called again it only shortens. */
void worker_drain(struct worker *w, bool ending, uint32_t ms);
void drain_tick(struct worker *w);

#endif
