/* Roles: the processes of the daemon. The parent execs this program again for each (a fresh address space), with its
 * descriptors at the fixed numbers below.
 *
 *   all      3 channel to the parent (frames of enum link_verb)    4 the configuration (a sealed file in memory)
 *   spawner  5 channel to control
 *   control  5 listener run/http.sock    6 listener control.sock
 *   proxy    5 the public listener       6 channel to control       7 memory of the rates (proxy/rate.h)
 *   static   5 listener run/static.sock */
#ifndef SPACED_ROLE_H
#define SPACED_ROLE_H

#include "spaced/config.h"

enum { ROLE_FD_PARENT = 3, ROLE_FD_CONFIG, ROLE_FD_FIRST, ROLE_FD_SECOND, ROLE_FD_THIRD };

/* Parent -> control (to proxies: PROXY_NEW_CONTROL and PROXY_RETIRE of proxy/route.h). The parent and a role may be of different
 * versions while one makes way for the other: a verb keeps its number and its fields, new fields come behind. */
enum link_verb {
	LINK_SPAWNER = 1, /* fds: channel to a fresh spawner */
	LINK_PROXY, /* {u32 proxy} fds: channel to a fresh proxy, or a fresh one to a proxy; the number is the parent's */
	LINK_SHUTDOWN, /* {u8 link_shutdown, u32 ms}: end in order and exit; pushes that are being received have so long */
	LINK_CONFIG, /* fds: a configuration file: take over what may change now */
	LINK_ANSWER, /* {u8 done, str text}: to the LINK_RELOAD or LINK_UPGRADE of the same frame id */
	/* control -> parent */
	LINK_RELOAD = 100, /* {}: read the configuration again */
	LINK_UPGRADE, /* {}: put the program that is installed now in the place of this one. The answer comes when that is
			 about to happen, or cannot */
	LINK_REPLACE, /* {u32 proxy}: control has closed its channel, since what it says has no form, or it does not read. Another
			 one is started; it gets a fresh channel, and makes way like those of before an upgrade */
};
enum link_shutdown {
	SHUTDOWN_LEAVE_APPS, /* who starts next adopts them */
	SHUTDOWN_STOP_APPS,
	SHUTDOWN_HAND_OVER, /* another control starts as soon as this one has ended; the proxies stay */
};

/* Who the roles run as. Accounts `user`, `user`-proxy and `user`-static; where one is missing, a number just below the
 * Spaces' range stands in. Without root: subordinate ids, or all zero where there are none, and nobody changes (sandbox/ids.h). */
struct accounts {
	uid_t control, proxy, files;
	gid_t control_gid, proxy_gid, files_gid;
	bool stand_in; /* as root: at least one account does not exist */
};
struct accounts role_accounts(const struct config *config);

/* Exit status of a role that no other start would help; the parent ends too, with status 1. */
#define ROLE_GIVES_UP 2

/* The parent itself: state folder, sockets, forks, restarts. Returns the exit status. `argv` of the program: the
 * configuration is read again from it. */
int role_parent(struct config *config, int argc, char **argv);
/* --check: could role_parent() start so? Says why not on stderr. Returns the exit status. */
int role_check(const struct config *config);
int role_spawner(struct config *config);
int role_control(struct config *config);
int role_proxy(struct config *config);
int role_static(struct config *config);

#endif
