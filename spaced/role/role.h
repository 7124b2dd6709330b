/* Roles: the processes of the daemon. The parent execs this program again for each (a fresh address space), with its
 * descriptors at the fixed numbers below.
 *
 *   all      3 channel to the parent (frames of enum link_verb)    4 the configuration (a sealed file in memory)
 *   spawner  5 channel to control
 *   control  5 listener run/http.sock    6 listener control.sock
 *   proxy    5 the public listener       6 channel to control
 *   static   5 listener run/static.sock */
#ifndef SPACED_ROLE_H
#define SPACED_ROLE_H

#include "spaced/config.h"

enum { ROLE_FD_PARENT = 3, ROLE_FD_CONFIG, ROLE_FD_FIRST, ROLE_FD_SECOND };

/* Parent -> control (to proxies: PROXY_NEW_CONTROL of proxy/route.h). */
enum link_verb {
	LINK_SPAWNER = 1, /* fds: channel to a fresh spawner */
	LINK_PROXY,	  /* fds: channel to a fresh proxy */
	LINK_SHUTDOWN,	  /* {u8 stop_apps}: end in order and exit */
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

/* The parent itself: state folder, sockets, forks, restarts. Returns the exit status. */
int role_parent(struct config *config);
int role_spawner(const struct config *config);
int role_control(const struct config *config);
int role_proxy(const struct config *config);
int role_static(const struct config *config);

#endif
