/* TCP sockets made inside the network namespace of a sandbox, for whoever is to reach the app: a socket belongs to the
 * namespace in which it was made. Called by the spawner for SPAWN_OPEN.
 *
 * Root goes there and comes back. Without root there is no way back: the host's network namespace is not ours to enter. So
 * a small process goes from one sandbox to the next instead and hands the sockets over; it ends with the caller. */
#ifndef SANDBOX_SOCKETS_H
#define SANDBOX_SOCKETS_H

#include <stdint.h>

#include "base/err.h"

#define SOCKETS_MAX 16

/* `n` (at most SOCKETS_MAX) non-blocking, close-on-exec sockets into `fds`, the caller's; or -1 and none. */
int sockets_make(int netns, uint32_t n, int *fds, struct err *err);

#endif
