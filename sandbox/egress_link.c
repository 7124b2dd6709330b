/* See egress.h: the veth pair of one sandbox, and those that are left over. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "sandbox/egress.h"
#include "sandbox/netns.h"
#include "sandbox/rtnl.h"
#include "sandbox/sockets.h"

static void link_name(const struct egress *e, uint32_t n, char out[16])
{
	snprintf(out, 16, EGRESS_PREFIX "%s%04x", e->tag, n & 0xffff);
}

#define MAX_OWN 1024
struct plan {
	const struct egress *e;
	uint32_t own[MAX_OWN]; /* ifindexes of our links: their routes do not count */
	size_t nown;
	uint32_t out; /* ifindex of the default route */
	uint32_t out_mtu;
	uint32_t at; /* the /30 in question */
	bool taken;
};

static void plan_link(void *ctx, const struct rtnl_link *l)
{
	struct plan *p = ctx;

	if (strncmp(l->name, EGRESS_PREFIX, 3) == 0 && strncmp(l->name + 3, p->e->tag, 5) == 0 && p->nown < MAX_OWN)
		p->own[p->nown++] = l->index;
	if (p->out && l->index == p->out)
		p->out_mtu = l->mtu;
}

static void plan_default(void *ctx, const struct rtnl_route *r)
{
	struct plan *p = ctx;

	if (r->prefix == 0 && r->ifindex && !p->out)
		p->out = r->ifindex;
}

static bool overlap(uint32_t a, unsigned pa, uint32_t b, unsigned pb)
{
	unsigned p = pa < pb ? pa : pb;
	uint32_t mask = p ? ~0U << (32 - p) : 0;

	return (a & mask) == (b & mask);
}

static void plan_route(void *ctx, const struct rtnl_route *r)
{
	struct plan *p = ctx;

	if (r->prefix == 0 || !overlap(r->addr, r->prefix, p->at & 0xffff0000U, 16))
		return;
	for (size_t i = 0; i < p->nown; i++)
		if (p->own[i] == r->ifindex)
			return;
	p->taken = true;
}

/* The first /16 that no foreign route of the host touches: out of 100.64/10 (shared address space, RFC 6598: no LAN uses
 * it), else out of 10/8. The kernel's tables are the truth; nothing is remembered. */
static int choose_net(struct rtnl *nl, struct plan *p, uint32_t n, struct err *err)
{
	for (unsigned k = 0; k < 64 + 200; k++) {
		uint32_t block =
		    k < 64 ? 0x64400000U + (((k + 32) % 64) << 16) : 0x0a000000U + ((254 - (k - 64)) << 16);
		uint32_t dns[4];
		size_t ndns = egress_host_resolvers(dns);
		p->at = block + n * 4;
		p->taken = false;
		if (rtnl_routes(nl, plan_route, p, err) < 0)
			return -1;
		for (size_t i = 0; i < ndns; i++)
			p->taken |= overlap(dns[i], 32, block, 16);
		if (!p->taken)
			return 0;
	}
	return err_set(err, EADDRNOTAVAIL, "no private network is left that the host does not use");
}

static int host_side(struct rtnl *nl, const char *name, uint32_t addr, struct err *err)
{
	static const struct {
		const char *path, *value;
	} settings[] = {
	    {"/proc/sys/net/ipv6/conf/%s/disable_ipv6", "1"},
	    {"/proc/sys/net/ipv4/conf/%s/rp_filter", "1"}, /* nobody sends with another's address */
	    {"/proc/sys/net/ipv4/conf/%s/accept_redirects", "0"},
	    {"/proc/sys/net/ipv4/conf/%s/send_redirects", "0"},
	    {"/proc/sys/net/ipv4/conf/%s/route_localnet", "1"}, /* a resolver on loopback; all else is rejected */
	};
	uint32_t dns[4];
	bool stub = egress_host_resolvers(dns) > 0 && dns[0] >> 24 == 127;

	for (size_t i = 0; i < sizeof settings / sizeof *settings - (stub ? 0 : 1); i++) {
		char path[96];
		int k = (int)(strchr(settings[i].path, '%') - settings[i].path);
		snprintf(path, sizeof path, "%.*s%s%s", k, settings[i].path, name, settings[i].path + k + 2);
		if (egress_sysctl(path, settings[i].value, err) < 0)
			return -1;
	}
	return rtnl_address(nl, name, addr, 30, err) < 0 ? -1 : rtnl_link_up(nl, name, err);
}

static int sandbox_side(int netns, uint32_t gateway, uint64_t bandwidth, struct err *err)
{
	struct rtnl nl = {0};
	int back;

	if (netns_enter(netns, &back, err) < 0)
		return -1;
	int r = rtnl_open(&nl, err);
	if (r == 0)
		r = rtnl_address(&nl, "eth0", gateway + 1, 30, err);
	if (r == 0)
		r = rtnl_link_up(&nl, "eth0", err);
	if (r == 0 && bandwidth) /* what it sends; the program has no capability to take this away */
		r = rtnl_bandwidth(&nl, "eth0", bandwidth, err);
	if (r == 0)
		r = rtnl_default_route(&nl, gateway, err);
	rtnl_close(&nl);
	netns_leave(back);
	return r;
}

int egress_attach(const struct egress *e, uint32_t n, int netns, uint64_t bandwidth, struct err *err)
{
	struct plan p = {.e = e, .out_mtu = 1500};
	struct rtnl nl;
	char name[16];

	if (n >= EGRESS_MAX)
		return err_set(err, EADDRNOTAVAIL, "too many sandboxes with egress");
	link_name(e, n, name);
	if (rtnl_open(&nl, err) < 0)
		return -1;
	int r = rtnl_link_delete(&nl, name, err); /* a leftover of an earlier life */
	if (r == 0)
		r = rtnl_routes(&nl, plan_default, &p, err);
	if (r == 0)
		r = rtnl_links(&nl, plan_link, &p, err);
	if (r == 0)
		r = choose_net(&nl, &p, n, err);
	if (r == 0)
		r = rtnl_veth(&nl, name, "eth0", netns, p.out_mtu >= 576 && p.out_mtu < 1500 ? p.out_mtu : 1500, err);
	if (r == 0) {
		r = host_side(&nl, name, p.at + 1, err);
		if (r == 0 && bandwidth) /* what it receives */
			r = rtnl_bandwidth(&nl, name, bandwidth, err);
		if (r == 0)
			r = sandbox_side(netns, p.at + 1, bandwidth, err);
		if (r < 0)
			rtnl_link_delete(&nl, name, NULL);
	}
	rtnl_close(&nl);
	return r < 0 ? err_prefix(err, "egress") : 0;
}

int egress_detach(const struct egress *e, uint32_t n, struct err *err)
{
	struct rtnl nl;
	char name[16];

	link_name(e, n, name);
	if (rtnl_open(&nl, err) < 0)
		return -1;
	int r = rtnl_link_delete(&nl, name, err);
	rtnl_close(&nl);
	return r;
}

struct sweep {
	const struct egress *e;
	bool (*keep)(void *ctx, uint32_t n);
	void *ctx;
	uint32_t *found;
	size_t n;
};

static void sweep_link(void *ctx, const struct rtnl_link *l)
{
	struct sweep *s = ctx;
	unsigned n;

	if (strncmp(l->name, EGRESS_PREFIX, 3) != 0 || strncmp(l->name + 3, s->e->tag, 5) != 0 ||
	    sscanf(l->name + 8, "%4x", &n) != 1 || s->keep(s->ctx, n))
		return;
	s->found = xreallocarray(s->found, s->n + 1, sizeof *s->found);
	s->found[s->n++] = n;
}

int egress_sweep(const struct egress *e, bool (*keep)(void *ctx, uint32_t n), void *ctx, struct err *err)
{
	struct sweep s = {.e = e, .keep = keep, .ctx = ctx};
	struct rtnl nl;

	if (rtnl_open(&nl, err) < 0)
		return -1;
	int r = rtnl_links(&nl, sweep_link, &s, err);
	rtnl_close(&nl);
	for (size_t i = 0; i < s.n && r == 0; i++)
		r = egress_detach(e, s.found[i], err);
	free(s.found);
	return r;
}

void egress_counters(int netns, struct rtnl_counters *out)
{
	struct rtnl nl = {0};
	struct err ignored;
	int fd;

	*out = (struct rtnl_counters){0};
	if (sockets_make(netns, SOCKET_RTNL, 1, &fd, &ignored) == 0 && rtnl_take(&nl, fd, &ignored) == 0)
		rtnl_counters(&nl, "eth0", out, &ignored);
	rtnl_close(&nl);
}

/* Tried on the loopback of a namespace that ends with its only process. */
bool egress_can_shape(void)
{
	int status = 1;
	pid_t pid = fork();

	if (pid == 0) {
		struct rtnl nl;
		struct err ignored;
		int flags = geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET;
		_exit(unshare(flags) < 0 || rtnl_open(&nl, &ignored) < 0 ||
		      rtnl_bandwidth(&nl, "lo", 1 << 20, &ignored) < 0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && status == 0;
}
