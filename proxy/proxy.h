/* The reverse proxy: libuv + llhttp, one unprivileged confined process. Used by spaced as a role and by the `proxy`
 * program. What it accepts and forwards: http1.h (the policy). */
#ifndef PROXY_PROXY_H
#define PROXY_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rates;
struct trusted;
struct proxy_limits {	      /* 0: the default in brackets */
	uint32_t head_bytes;  /* request head [32768] */
	uint32_t fields;      /* header fields [100], at most HTTP1_FIELDS_MAX */
	uint32_t url_bytes;   /* [8192] */
	uint32_t head_ms;     /* to receive a request head [10000] */
	uint32_t idle_ms;     /* keep-alive idle, client side [60000] */
	uint32_t connect_ms;  /* upstream connect [5000]; to an app (ROUTE_APP) the first try: hold_ms in all */
	uint32_t pool_ms;     /* keep-alive idle, upstream side [4000] */
	uint32_t response_ms; /* first byte of a response [300000]; none for what streams or is upgraded */
	uint32_t stall_ms; /* no progress on a body in either direction [300000]; event streams and WebSockets exempt */
	uint32_t connections; /* client connections per worker [16384]: 503 with Retry-After beyond */
	uint32_t
	    per_client; /* connections per client address (IPv6: per /64) [1024; loopback only when set]: 429 beyond */
	uint32_t per_space; /* requests in flight per Space [2048]: 503 with Retry-After beyond */
	uint32_t
	    client_rate; /* requests per second per client address, as above [0: no limit]: 429 with Retry-After beyond */
	uint32_t space_rate; /* stand-alone: requests per second per route, the same */
	/* requests that wait for an app which sleeps or starts (hold_rule.h) */
	uint32_t hold_ms;	/* [60000] */
	uint32_t hold_max_ms;	/* the most that X-Scale-Up-Timeout may ask for [300000] */
	uint32_t hold_page_ms;	/* a browser's, until it gets the waiting page [1500] */
	uint32_t hold_requests; /* per Space [256]: 503 with Retry-After beyond */
	uint32_t hold_bytes;	/* of heads and of bodies begun, per Space [16 MiB] */
	uint32_t drain_ms;	/* at SIGTERM, for what is under way [10000] */
};

struct proxy_config {
	/* TCP sockets, non-blocking, in listen(2) state, taken over. Processes may share one (spaced: so that a taken port is
	 * noticed) or bind one each with SO_REUSEPORT (the `proxy` program). Nothing is accepted before the first
	 * PROXY_COMMIT: visitors wait in the (bounded) backlog. */
	const int *listeners;
	size_t nlisteners;
	int control;		   /* SEQPACKET to the control role, or -1 (stand-alone) */
	int parent;		   /* SEQPACKET from the parent (PROXY_NEW_CONTROL, PROXY_SPAWNER of route.h), or -1 */
	int spawner;		   /* SEQPACKET to the spawner (SPAWN_OPEN), or -1 */
	const char *routes_file;   /* stand-alone: read now and again on SIGHUP */
	const char *routes_before; /* what it said when it was last right, should it be wrong now; or NULL */
	char sticky[33];	   /* stand-alone: key of the cookies of sticky routes, the same for all workers */
	/* Access log: 0: none; N: each error and refusal, and one in N of the other answers. It goes to control, or into the
	 * file `access_log` (stand-alone; opened anew on SIGHUP). */
	uint32_t log_sample;
	const char *access_log;
	struct rates *rates; /* shared by all workers (rate.h), or NULL: its own */
	struct proxy_limits limits;
	bool supervised; /* its signals come twice, to all processes and passed on: only SIGQUIT asks for haste */
	const struct trusted *trusted; /* proxies in front whose word about visitors is believed, or NULL */
};

/* Runs until `parent` closes, or SIGTERM/SIGINT: then nothing more is accepted, requests in flight have drain_ms to end
 * (drain.c), and it returns the exit status; at once when the signal comes a second time (unless supervised), or with
 * SIGQUIT. PROXY_RETIRE of the parent: the same with another deadline, while another worker serves the socket. When `control`
 * closes it goes on with the routes it has and takes a new control channel from the parent. Signals that the caller holds
 * (sigprocmask(2)) until then are taken once they can be. The caller has confined the process already; beyond
 * read/write/epoll/timerfd/signalfd it needs: socket, connect, listen, accept4, shutdown, get/setsockopt, getpeername,
 * getsockname, sendmsg, recvmsg. */
int proxy_main(const struct proxy_config *config);

#endif
