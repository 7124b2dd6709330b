/* Sockets made inside the network namespace of a sandbox: a socket belongs to the namespace in which it was made. TCP for
 * whoever is to reach the app (SPAWN_OPEN), netlink to read the counters of its link.
 *
 * Root goes there and comes back. Without root there is no way back: the host's network namespace is not ours to enter. So
 * a small process goes from one sandbox to the next instead and hands the sockets over; it ends with the caller. */
#ifndef SANDBOX_SOCKETS_H
#define SANDBOX_SOCKETS_H

#include <stdint.h>

#include "base/err.h"

#define SOCKETS_MAX 16

enum socket_kind {
	SOCKET_TCP,  /* non-blocking */
	SOCKET_RTNL, /* NETLINK_ROUTE, not bound yet */
};
/* `n` (at most SOCKETS_MAX) close-on-exec sockets into `fds`, the caller's; or -1 and none. */
int sockets_make(int netns, enum socket_kind kind, uint32_t n, int *fds, struct err *err);

#endif
