/* What the kernel's netlink families have in common: a request and its answers, over libmnl. */
#ifndef SANDBOX_NETLINK_H
#define SANDBOX_NETLINK_H

#include <libmnl/libmnl.h>

/* A list (NLM_F_DUMP) longer than one answer can change while it is read: NETLINK_CHANGED, and it is to be asked for again,
 * at most so often. */
#define NETLINK_CHANGED (-EINTR)
#define NETLINK_TRIES 200

/* Sends `h` and hands its answers to `cb`, which may be NULL, up to the last one. 0 or negative errno; NETLINK_CHANGED after
 * the last one, too, so that the socket can be used again. */
int netlink_ask(struct mnl_socket *s, const struct nlmsghdr *h, mnl_cb_t cb, void *ctx);

#endif
