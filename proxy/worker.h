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
#include "base/err.h"
#include "proxy/counters.h"
#include "proxy/errpage.h"
#include "proxy/hold_rule.h"
#include "proxy/http1.h"
#include "proxy/proxy.h"
#include "proxy/rate.h"
#include "proxy/route.h"
#include "proxy/route_feed.h"
#include "proxy/sticky.h"
#include "proxy/ticket.h"
#include "proxy/trusted.h"

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

/* A socket in the loop: called with what epoll says of it. */
struct source {
	void (*ready)(struct source *s, uint32_t events);
};

/* What clients and upstreams have in common. */
struct conn {
	struct source source;
	struct timed timed;
	struct worker *w;
	struct conn *next; /* among those that are put off, or closed */
	struct buf in;	   /* bytes that wait: a head in pieces, or what cannot be used yet */
	size_t seen;	   /* of `in`: looked at for the end of the head */
	size_t pending;	   /* bytes accepted by conn_write and not yet with the kernel: */
	struct outgoing *out;
	int fd;
	uint32_t watched; /* the events that epoll tells of; 0: it does not know it yet */
	bool is_client, reading, eof, shut, closing, connecting;
	bool readable, more; /* more: an end, an error or urgent data lies behind what is read next */
	bool put_off;	     /* it waits for its turn, or to be freed */
};

/* turn.c: for how long connections of a Space were served in this turn of the loop, and before beyond their due. */
#define TURN_PLACES 1024
#define TURN_NEWCOMERS 0
struct turn_place {
	uint64_t spent;		   /* ns, */
	uint64_t turn;		   /* as of this one */
	uint64_t denied;	   /* the last turn in which somebody of it had to wait */
	struct conn *first, *last; /* who is put off */
	struct turn_place *next;   /* of those that wait */
	bool waits;
};
struct turns {
	uint64_t number;
	uint16_t last;				   /* Space that was served */
	uint64_t shared_until;			   /* by more than one of them: ms */
	struct turn_place *running;		   /* who is being served, or NULL, */
	uint64_t since;				   /* and from when on: ns */
	struct turn_place *waiting, *last_waiting; /* that have somebody who is put off */
	struct turn_place places[TURN_PLACES];
};

struct listener {
	struct source source;
	struct worker *w;
	int fd;
	uint16_t port;
	bool listening, watched;
};

struct client {
	struct conn conn;
	struct client *prev, *next; /* in worker->clients */
	struct exchange *x;	    /* the request under way, or NULL */
	struct peer *peer;	    /* its address in the per-client count, or NULL */
	uint64_t who;		    /* the same among the rates */
	uint16_t port;		    /* it came in on */
	uint16_t place;		    /* among the turns: of the Space that it asked last, or TURN_NEWCOMERS */
	uint8_t addr_len;
	bool feeding, lingering, goodbye; /* goodbye: close when all is written */
	bool turn_over;			  /* more requests wait in conn.in: they are put off */
	bool trusted;			  /* its word about visitors is believed */
	struct in6_addr address;	  /* as trusted.h has it */
	char addr[46];			  /* the same as a text */
};

struct upstream {
	struct conn conn;
	struct pool *pool;
	struct exchange *x;		/* NULL: idle in the pool */
	struct upstream *prev, *next;	/* of the idle list, or of worker->knocking */
	uint32_t quiets;		/* of its pool, when it was made */
	bool connected, reused, pooled; /* pooled: in the idle list */
	bool knocks;			/* in worker->knocking: looked at again */
	uint16_t knock_ms;		/* after so long, */
	uint64_t knock_at;		/* which is then */
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
	/* Who asks: the client itself, or the visitor that a trusted one speaks for. */
	struct {
		struct str addr;
		uint64_t who; /* among the rates */
		const char *proto;
		uint16_t port;
		struct peer *peer; /* a trusted one's visitor, in the count of connections while this is under way */
		bool crowded;	   /* there are too many of it */
		char said[46];
	} from;
	struct buf head; /* to the app; kept until the first byte of the response */
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
	uint64_t stood_ms; /* the worker stood still for so long meanwhile, while it was not held */
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
	struct ask *ask;      /* control is asked whether it may pass */
	char user[TICKET_ID]; /* for whom the gate of a private Space has opened; "": it is open to all */
};

#define SPARE_MAX 16

/* Connections to one upstream address, or one generation of one app: never shared between apps. */
struct pool {
	UT_hash_handle hh;
	char *key;
	enum route_kind kind;
	char name[108]; /* of the endpoint */
	uint32_t generation;
	uint16_t port;
	struct upstream *idle;	  /* the last one used first */
	struct exchange *waiting; /* in line: for a socket from the spawner, or a place among those that knock */
	size_t nidle, busy, nwaiting, opens; /* busy: exchanges; opens: sockets asked for */
	size_t nknocking;
	int spare[SPARE_MAX];
	int nspare;
	uint64_t failed_until; /* it took no connection */
	uint32_t quiets;       /* pool_quiet() calls: what was made before the last one is not kept */
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
	struct client *clients;
	int poll_fd;
	struct conn *closed; /* freed at the end of this turn of the loop */
	bool over;	     /* the loop ends with this turn */
	bool listening;
	bool supervised;
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
	struct trusted trusted;
	struct hold *holds;
	uint64_t hold_due; /* the next one is over then */
	struct upstream *knocking;
	uv_timer_t knock; /* the next one of them is due, or somebody in a line may go on */
	struct timed deadlines[DL_KINDS];
	uint32_t deadline_ms[DL_KINDS];
	uv_timer_t tick;
	uint64_t ticked_at;
	struct turns turns;
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

/* limits.c: deadlines, rates. */
int limits_init(struct worker *w, const struct proxy_config *config); /* 0 or negative errno */
void deadline_set(struct conn *c, enum deadline kind);
void deadline_clear(struct conn *c);
void deadline_tick(struct worker *w);
/* peer.c: connections per client address, and whose a request is. */
void peer_name(struct client *c, const struct sockaddr *sa); /* whose the connection is */
/* Counts it, unless a trusted proxy makes it; false: there are too many from its address. */
bool peer_enter(struct client *c);
void peer_leave(struct worker *w, struct peer **peer);
/* What counts as one client: the IPv4 address, as a mapped one, or the /64, which one customer owns whole. True: loopback. */
bool peer_key(const struct in6_addr *address, struct in6_addr *key);
void peer_visitor(struct exchange *x, const struct http1_request *r); /* sets x->from */
/* Its client, and, once the gate is open for it, its Space is asked too fast: answered with 429. */
bool limits_refuse_client(struct exchange *x);
bool limits_refuse_space(struct exchange *x);

/* loop.c. Functions of libuv may be called at any time; uv_run only here. */
int loop_init(struct worker *w);
void loop_run(struct worker *w);
int loop_watch(struct worker *w, int op, int fd, uint32_t events, struct source *s); /* epoll_ctl(2) */

/* listener.c */
int listener_init(struct listener *l, struct worker *w, int fd);
int listener_start(struct listener *l);
int listener_resume(struct listener *l); /* after it had no descriptor for one more; else no-op */
/* Takes who waits there, and closes it. */
void listener_close(struct listener *l);

/* turn.c */
uint16_t turn_place(uint64_t who);
void turn_next(struct worker *w);
bool turn_shared(const struct worker *w); /* by several Spaces: nobody is served out of turn */
void turn_share(struct worker *w);	  /* so it is from here on; they may be newcomers */
void turn_is_of(const struct conn *c);	  /* what is done now is done for it */
bool turn_may_read(const struct conn *c); /* now; else in the next turn of the loop */
bool turn_may_accept(struct worker *w);	  /* the same */
/* To be read or resumed at the end of this turn, or when there is time. It must not be freed before. */
void turn_put_off(struct conn *c);
void turn_serve(struct worker *w, void (*serve)(struct conn *c));

/* conn.c, splice.c: reading into blocks, writing with the rest kept. */
void conn_open(struct conn *c, struct worker *w, int fd);		    /* not blocking; taken over */
int conn_connect(struct conn *c, const struct sockaddr *sa, socklen_t len); /* then: upstream_connected */
/* The same once more, from the beginning, if the other side has said nothing yet. 0 or negative errno. */
int conn_connect_again(struct conn *c, const struct sockaddr *sa, socklen_t len);
void conn_later(struct worker *w);  /* the end of a turn: those who were put off, or have closed */
char *conn_block(struct worker *w); /* of BLOCK_SIZE, for what is read next */
void conn_read_start(struct conn *c);
void conn_read_stop(struct conn *c);
/* Writes now what the kernel takes and keeps the rest (c->pending). `bufs` is used up. 0 or negative errno. */
int conn_write(struct conn *c, uv_buf_t *bufs, unsigned n);
/* The same, when conn_shutdown or conn_close follows at once: one packet for the last bytes and the end of the direction. */
int conn_write_last(struct conn *c, uv_buf_t *bufs, unsigned n);
void splice_init(struct worker *w);
/* Moves what `from` has received on to `to` inside the kernel: for the bulk of bodies that need no look. Both must have
 * nothing pending or waiting. At most `max` bytes; returns how many, those counted that `to` keeps as pending. -EAGAIN:
 * nothing now, read as usual; -EPIPE: writing failed. */
ssize_t conn_splice(struct conn *from, struct conn *to, uint64_t max);
#define SPLICE_WORTH 16384 /* after a read of so much there is more behind it */
#define SPLICE_TIMES 16	   /* then others have their turn */
/* Of one that may say nothing for long: after a minute the kernel asks whether its peer is still there. */
void conn_keepalive(struct conn *c);
/* What was read, now: the next piece may wait for that in its peer (Nagle's algorithm), and the kernel with it for an answer. */
void conn_acknowledge(struct conn *c);
/* Ends the sending direction once all is written. */
void conn_shutdown(struct conn *c);
void conn_close(struct conn *c, bool reset);

/* client.c */
void client_new(struct listener *l, int fd, const struct sockaddr *sa); /* accepted from it; taken over */
void client_input(struct client *c, char *p, ssize_t n);		/* 0: end; negative errno */
void client_resume(struct client *c);	       /* something that blocked its input has changed */
void client_drained(struct client *c);	       /* all pending bytes are with the kernel */
void client_failed(struct client *c);	       /* its connection broke */
void client_cut(struct client *c, bool reset); /* ends it in the middle of a response */
void client_timeout(struct client *c, enum deadline kind);
void client_next(struct client *c, bool keep, bool linger); /* its exchange is over */
void client_each(struct worker *w, void (*f)(struct client *c, const void *ctx), const void *ctx); /* may cut it */
void client_put_off(struct worker *w, uint64_t ms); /* whoever waits, or is waited for, has so much longer */
void client_hurry_idle(struct worker *w);	    /* from here on whoever has said nothing for a moment is closed */

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
/* From its endpoint, which has had nothing of it: to be dispatched again. */
void exchange_withdraw(struct exchange *x);
void exchange_take_idle(struct exchange *x);		    /* x->u has not got through, and x->pool has an idle one */
void exchange_upstream_lost(struct exchange *x, int error); /* could not connect, or closed before its time */
void exchange_abort(struct exchange *x);		    /* the client is gone */
void exchange_done(struct exchange *x);			    /* the response is complete */
const char *worker_date(struct worker *w);

/* relay.c: returns bytes used; less than n: blocked or over. The exchange may be gone afterwards. */
size_t relay_request(struct exchange *x, char *p, size_t n);
void relay_response_bytes(struct upstream *u, char *p, size_t n);
void relay_response_eof(struct exchange *x);
void relay_tunnel_eof(struct exchange *x, struct conn *from);
bool relay_tunnel_over(struct exchange *x); /* ends it when both have said all, and the app has it all */

/* upstream.c */
/* "ADDR:PORT" or "[ADDR]:PORT". 0 or -EINVAL. */
int upstream_address(const char *text, struct sockaddr_storage *sa);
int upstream_connect(struct pool *p, struct exchange *x, int fd); /* fd: from the spawner, or -1 */
/* What has not been answered by the app's kernel is begun anew. 0 or negative errno. */
int upstream_connect_again(struct upstream *u);
void upstream_attach(struct upstream *u, struct exchange *x);
void upstream_close(struct upstream *u);
void upstream_connected(struct upstream *u, int status);     /* 0 or negative errno */
void upstream_input(struct upstream *u, char *p, ssize_t n); /* 0: end; negative errno */
void upstream_drained(struct upstream *u);
void upstream_broken(struct upstream *u); /* a write to it failed */

/* knock.c: new connections to apps, until the app's kernel has them. */
void knock_init(struct worker *w);
void knock_begin(struct upstream *u); /* it connects; no-op for what is no app's */
void knock_sent(struct upstream *u);  /* so is its head: it may be over with that */
void knock_end(struct upstream *u);   /* closed or answered; no-op when it is over */
void knock_soon(struct worker *w);    /* there is something for somebody who waits, as soon as this turn is over */
bool knock_has_room(const struct pool *p);

/* reroute.c */
bool reroute_due(const struct exchange *x); /* its host has another route than the one it came by */
/* x->target is that one from here on. False: it may not have it, since it was let in for another one, or there is none. */
bool reroute_take(struct exchange *x);
void reroute_send(struct exchange *x, bool taken); /* may end it */

/* balance.c */
int balance_pick(const struct exchange *x); /* the endpoint; -1: there is none that was not tried */

/* pool.c */
struct pool *pool_of(struct worker *w, const struct target *t, unsigned endpoint);   /* made when it is not there */
struct pool *pool_find(struct worker *w, const struct target *t, unsigned endpoint); /* NULL: no connections */
void pool_failed(struct worker *w, struct pool *p);
/* Gives the exchange an idle connection or starts to make one; `fresh`: not an idle one. 0 or negative errno. */
int pool_acquire(struct pool *p, struct exchange *x, bool fresh);
void pool_serve(struct worker *w, struct pool *p);	 /* somebody in its line may go on */
void pool_cancel(struct exchange *x);			 /* it waits in line no more */
void pool_take_idle(struct pool *p, struct exchange *x); /* there is one */
void pool_put_back(struct upstream *u);
void pool_end(struct worker *w); /* an orderly end: nobody waits any more */
void pool_remove_idle(struct upstream *u);
void pool_leave(struct pool *p); /* one exchange less */
void pool_drain(struct worker *w, const char *instance, uint32_t generation);
void pool_routes_changed(struct worker *w);
void pool_sweep(struct worker *w);
/* Ends what is under way: WebSockets and responses by closing their connections, what has no answer yet by one of ours; what
 * was not sent yet goes to where its route leads by now. */
void pool_cut(struct worker *w, const char *instance, uint32_t generation);
/* To an instance or a role's socket: closes idle connections, and the others after their answers. The number of exchanges
 * that are under way. */
uint32_t pool_quiet(struct worker *w, const char *endpoint, uint32_t generation);
/* The answer to spawn_open(); -ENOTCONN: the spawner is gone, who waits for a socket goes on to wait. */
void pool_opened(struct worker *w, struct pool *p, struct frame *f, size_t asked, int error);
void pool_new_spawner(struct worker *w);

/* spawn.c */
void spawn_attach(struct worker *w, int fd);
void spawn_open(struct worker *w, struct pool *p, uint32_t n); /* no-op without a spawner */
void spawn_tick(struct worker *w);			       /* without one it is asked for */

/* control.c */
void control_channel_attach(struct worker *w, int fd);
void parent_channel_attach(struct worker *w, int fd);
void parent_say_listening(struct worker *w);
/* It is there, and does not hang: who has more to tell it than it asked for keeps that until then. */
bool control_listens(const struct worker *w);
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
bool gate_expel(struct worker *w, struct reader *rd); /* PROXY_EXPEL */
bool gate_closed_since(const struct exchange *x);     /* it was let in when its host was public, which is private now */
/* After Spaces have become private: WebSockets and event streams of theirs that stand are cut, and requests that are held. */
void gate_cut(struct worker *w);

/* file.c */
/* The text of a routes file, which ends with a NUL: 0, or -1 with the cause. */
int routes_file_read(const char *path, struct buf *text, struct err *err);
/* The table of such a text, which is cut up, or NULL with the cause; `path` is for that. `sticky`, `rate`: of every route. */
struct route_table *routes_parse(const char *path, char *text, const char *sticky, uint32_t rate, struct err *err);
/* Serves the routes of the file or, when it has a mistake, which is logged, those of the text `before`, if there is one. */
bool routes_file_load(struct worker *w, const char *path, const char *before);

/* proxy.c */
void worker_listen(struct worker *w);

/* drain.c */
/* Accepts nothing more and ends when the last client has gone, or after `ms`. `ending`: what is held or idle goes soon; else
 * another worker has taken over, and this one serves who it has. Called again it only shortens. */
void worker_drain(struct worker *w, bool ending, uint32_t ms);
void drain_tick(struct worker *w);

#endif
