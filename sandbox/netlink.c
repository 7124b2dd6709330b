/* See netlink.h. */
#include "sandbox/netlink.h"

#include <errno.h>
#include <stdbool.h>

#define ROOM 32768 /* the most that the kernel fills at a time: fewer answers, fewer chances of a change between them */

/* Libmnl would stop at such a message, and leave what comes behind it for the next request. */
static bool take_changed(void *room, ssize_t len)
{
	bool changed = false;
	int left = (int)len;

	for (struct nlmsghdr *h = room; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
		changed |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
		h->nlmsg_flags &= (uint16_t)~NLM_F_DUMP_INTR;
	}
	return changed;
}

int netlink_ask(struct mnl_socket *s, const struct nlmsghdr *h, mnl_cb_t cb, void *ctx)
{
	_Alignas(struct nlmsghdr) char room[ROOM];
	bool changed = false;

	if (mnl_socket_sendto(s, h, h->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t len = mnl_socket_recvfrom(s, room, sizeof room);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		changed |= take_changed(room, len);
		int r = mnl_cb_run(room, (size_t)len, h->nlmsg_seq, mnl_socket_get_portid(s), cb, ctx);
		if (r < 0)
			return -errno;
		if (r == MNL_CB_STOP)
			return changed ? NETLINK_CHANGED : 0;
	}
}
