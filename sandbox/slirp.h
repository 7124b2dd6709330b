/* The way out for a sandbox that no root has made: slirp4netns connects its network namespace from the outside, as the
 * caller's own user, behind its own seccomp filter and mount namespace, and without a way to the host's loopback. Who may be
 * reached is said by rules inside of the namespace, put there before its program starts: whoever starts a sandbox sets
 * sandbox_sources.network to egress_inside_network() with `.slirp = true`, which calls this (egress_inside.h). */
#ifndef SANDBOX_SLIRP_H
#define SANDBOX_SLIRP_H

#include "sandbox/egress_list.h"

/* Whether this host can: the program and /dev/net/tun. `why` gets one line when not. */
bool slirp_probe(struct buf *why);
/* Starts the program and waits for the link `eth0` in `netns`; the caller has made that, or the user namespace that owns it. It
 * holds a copy of `gone`, and ends when *alive (the caller's) is closed. */
int slirp_start(const struct egress_policy *policy, int netns, int gone, int *alive, struct err *err);

#endif
