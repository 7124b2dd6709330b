/* See rtnl.h. */
#include "sandbox/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "sandbox/netlink.h"

#define ROOM 8192

int rtnl_open(struct rtnl *n, struct err *err)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd < 0 ? err_set(err, errno, "open a netlink socket") : rtnl_take(n, fd, err);
}

int rtnl_take(struct rtnl *n, int fd, struct err *err)
{
	n->s = mnl_socket_fdopen(fd);
	if (!n->s) {
		err_set(err, errno, "open a netlink socket");
		close(fd);
		return -1;
	}
	if (mnl_socket_bind(n->s, 0, MNL_SOCKET_AUTOPID) < 0) {
		err_set(err, errno, "bind a netlink socket");
		rtnl_close(n);
		return -1;
	}
	n->seq = 0;
	return 0;
}

void rtnl_close(struct rtnl *n)
{
	if (n->s)
		mnl_socket_close(n->s);
	n->s = NULL;
}

static int talk(struct rtnl *n, struct nlmsghdr *h, mnl_cb_t cb, void *ctx)
{
	h->nlmsg_seq = ++n->seq;
	return netlink_ask(n->s, h, cb, ctx);
}

static struct nlmsghdr *request(char *room, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(room);

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	return h;
}

int rtnl_veth(struct rtnl *n, const char *name, const char *peer, int netns, uint32_t mtu, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	mnl_attr_put_u32(h, IFLA_MTU, mtu);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
	struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	struct nlattr *other = mnl_attr_nest_start(h, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(h, IFLA_IFNAME, peer);
	mnl_attr_put_u32(h, IFLA_MTU, mtu);
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)netns);
	mnl_attr_nest_end(h, other);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	int r = talk(n, h, NULL, NULL);
	return r < 0 ? err_set(err, -r, "make veth %s", name) : 0;
}

int rtnl_link_up(struct rtnl *n, const char *name, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof *i);

	i->ifi_flags = IFF_UP;
	i->ifi_change = IFF_UP;
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	int r = talk(n, h, NULL, NULL);
	return r < 0 ? err_set(err, -r, "bring up %s", name) : 0;
}

int rtnl_link_delete(struct rtnl *n, const char *name, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_DELLINK, NLM_F_ACK);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	int r = talk(n, h, NULL, NULL);
	return r < 0 && r != -ENODEV ? err_set(err, -r, "delete link %s", name) : 0;
}

int rtnl_address(struct rtnl *n, const char *name, uint32_t addr, unsigned prefix, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(h, sizeof *a);

	a->ifa_family = AF_INET;
	a->ifa_prefixlen = (uint8_t)prefix;
	a->ifa_index = if_nametoindex(name);
	mnl_attr_put_u32(h, IFA_LOCAL, htonl(addr));
	mnl_attr_put_u32(h, IFA_ADDRESS, htonl(addr));
	int r = talk(n, h, NULL, NULL);
	return r < 0 ? err_set(err, -r, "address of %s", name) : 0;
}

int rtnl_default_route(struct rtnl *n, uint32_t gateway, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);

	m->rtm_family = AF_INET;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = RT_SCOPE_UNIVERSE;
	m->rtm_type = RTN_UNICAST;
	mnl_attr_put_u32(h, RTA_GATEWAY, htonl(gateway));
	int r = talk(n, h, NULL, NULL);
	return r < 0 ? err_set(err, -r, "default route") : 0;
}

/* Bursts of a fiftieth of a second; what waits longer than a tenth is dropped. The bucket holds a whole packet at least, and
 * packets of segmentation offload that do not fit are segmented by it. */
int rtnl_bandwidth(struct rtnl *n, const char *name, uint64_t rate, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
	struct tcmsg *t = mnl_nlmsg_put_extra_header(h, sizeof *t);
	uint64_t burst = rate / 50 > 16384 ? rate / 50 : 16384;
	uint64_t waiting = rate / 10 + burst;
	struct tc_tbf_qopt opt = {
	    .rate = {.rate = rate < UINT32_MAX ? (uint32_t)rate : UINT32_MAX, .linklayer = TC_LINKLAYER_ETHERNET},
	    .limit = waiting < UINT32_MAX ? (uint32_t)waiting : UINT32_MAX};

	t->tcm_family = AF_UNSPEC;
	t->tcm_ifindex = (int)if_nametoindex(name);
	t->tcm_parent = TC_H_ROOT;
	t->tcm_handle = 0x10000;
	mnl_attr_put_strz(h, TCA_KIND, "tbf");
	struct nlattr *options = mnl_attr_nest_start(h, TCA_OPTIONS);
	mnl_attr_put(h, TCA_TBF_PARMS, sizeof opt, &opt);
	mnl_attr_put_u32(h, TCA_TBF_BURST, burst < UINT32_MAX ? (uint32_t)burst : UINT32_MAX);
	if (rate >= UINT32_MAX)
		mnl_attr_put_u64(h, TCA_TBF_RATE64, rate);
	mnl_attr_nest_end(h, options);
	int r = talk(n, h, NULL, NULL);
	return r < 0 ? err_set(err, -r, "bandwidth of %s (sch_tbf)", name) : 0;
}

static int counters_cb(const struct nlmsghdr *h, void *ctx)
{
	struct rtnl_counters *out = ctx;
	struct rtnl_link_stats64 stats = {0};
	struct nlattr *a;

	mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
	{
		size_t len = mnl_attr_get_payload_len(a);
		if (mnl_attr_get_type(a) != IFLA_STATS64)
			continue;
		memcpy(&stats, mnl_attr_get_payload(a), len < sizeof stats ? len : sizeof stats);
		*out = (struct rtnl_counters){.received = stats.rx_bytes, .sent = stats.tx_bytes};
	}
	return MNL_CB_OK;
}

int rtnl_counters(struct rtnl *n, const char *name, struct rtnl_counters *out, struct err *err)
{
	char room[ROOM] = {0};
	struct nlmsghdr *h = request(room, RTM_GETLINK, NLM_F_ACK);

	*out = (struct rtnl_counters){0};
	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	int r = talk(n, h, counters_cb, out);
	return r < 0 ? err_set(err, -r, "counters of %s", name) : 0;
}

/* A whole list of messages of `size` bytes and their attributes, as `cb` puts them into `found`. */
static int list(struct rtnl *n, uint16_t type, unsigned char family, size_t size, mnl_cb_t cb, struct buf *found)
{
	int r = NETLINK_CHANGED;

	for (int i = 0; i < NETLINK_TRIES && r == NETLINK_CHANGED; i++) {
		char room[ROOM] = {0};
		struct nlmsghdr *h = request(room, type, NLM_F_DUMP);
		struct rtgenmsg *m = mnl_nlmsg_put_extra_header(h, size); /* all of them begin so */
		m->rtgen_family = family;
		buf_clear(found);
		r = talk(n, h, cb, found);
	}
	return r;
}

static int address_cb(const struct nlmsghdr *h, void *found)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct nlattr *a;

	if (h->nlmsg_type != RTM_NEWADDR || m->ifa_family != AF_INET || m->ifa_scope == RT_SCOPE_HOST)
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *m)
	{
		uint32_t addr;
		if (mnl_attr_get_type(a) != IFA_LOCAL || mnl_attr_get_payload_len(a) != sizeof addr)
			continue;
		addr = ntohl(mnl_attr_get_u32(a));
		buf_add(found, &addr, sizeof addr);
	}
	return MNL_CB_OK;
}

void rtnl_host_addresses(struct rtnl_addresses *out)
{
	cleanup_buf struct buf found = BUF_INIT;
	struct err ignored;
	struct rtnl n;

	out->n = 0;
	if (rtnl_open(&n, &ignored) < 0)
		return;
	if (list(&n, RTM_GETADDR, AF_INET, sizeof(struct ifaddrmsg), address_cb, &found) == 0 && found.len) {
		size_t len = found.len < sizeof out->a ? found.len : sizeof out->a;
		memcpy(out->a, found.data, len);
		out->n = len / sizeof *out->a;
	}
	rtnl_close(&n);
}

static int route_cb(const struct nlmsghdr *h, void *found)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct rtnl_route r = {.prefix = m->rtm_dst_len};
	struct nlattr *a;

	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_family != AF_INET)
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *m)
	{
		if (mnl_attr_get_type(a) == RTA_DST && mnl_attr_get_payload_len(a) == 4)
			r.addr = ntohl(mnl_attr_get_u32(a));
		if (mnl_attr_get_type(a) == RTA_OIF && mnl_attr_get_payload_len(a) == 4)
			r.ifindex = mnl_attr_get_u32(a);
	}
	buf_add(found, &r, sizeof r);
	return MNL_CB_OK;
}

static int link_cb(const struct nlmsghdr *h, void *found)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct rtnl_link l = {.index = (uint32_t)m->ifi_index};
	struct nlattr *a;

	if (h->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *m)
	{
		if (mnl_attr_get_type(a) == IFLA_IFNAME && mnl_attr_validate(a, MNL_TYPE_NUL_STRING) == 0)
			snprintf(l.name, sizeof l.name, "%.15s", mnl_attr_get_str(a));
		if (mnl_attr_get_type(a) == IFLA_MTU && mnl_attr_get_payload_len(a) == 4)
			l.mtu = mnl_attr_get_u32(a);
	}
	buf_add(found, &l, sizeof l);
	return MNL_CB_OK;
}

int rtnl_routes(struct rtnl *n, void (*each)(void *ctx, const struct rtnl_route *r), void *ctx, struct err *err)
{
	cleanup_buf struct buf found = BUF_INIT;
	int r = list(n, RTM_GETROUTE, AF_INET, sizeof(struct rtmsg), route_cb, &found);

	if (r < 0)
		return err_set(err, -r, "list the routes");
	const struct rtnl_route *all = (const void *)found.data;
	for (size_t i = 0; i < found.len / sizeof *all; i++)
		each(ctx, &all[i]);
	return 0;
}

int rtnl_links(struct rtnl *n, void (*each)(void *ctx, const struct rtnl_link *l), void *ctx, struct err *err)
{
	cleanup_buf struct buf found = BUF_INIT;
	int r = list(n, RTM_GETLINK, AF_UNSPEC, sizeof(struct ifinfomsg), link_cb, &found);

	if (r < 0)
		return err_set(err, -r, "list the links");
	const struct rtnl_link *all = (const void *)found.data;
	for (size_t i = 0; i < found.len / sizeof *all; i++)
		each(ctx, &all[i]);
	return 0;
}
