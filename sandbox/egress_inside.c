/* See egress_inside.h. */
#include "sandbox/egress_inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "sandbox/egress.h"
#include "sandbox/gate.h"
#include "sandbox/netns.h"
#include "sandbox/rtnl.h"
#include "sandbox/slirp.h"
#include "sandbox/worker.h"

/* -- rules ------------------------------------------------------------------------------------------------------------ */

static void add_addr(struct buf *b, uint32_t a)
{
	buf_addf(b, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}

static void list_rules(const struct egress_policy *p, struct buf *out)
{
	static const char transport[] = "meta l4proto { tcp, udp } ";

	buf_adds(out, "ip daddr @" GATE_HOSTS " accept\n");
	buf_addf(out, "%sip daddr . th dport @" GATE_SERVICES " accept\n", transport);
	for (size_t i = 0; i < p->n; i++) {
		const struct egress_entry *e = &p->entries[i];
		if (e->name[0])
			continue;
		if (e->port)
			buf_adds(out, transport);
		buf_adds(out, "ip daddr ");
		add_addr(out, e->addr);
		buf_addf(out, "/%u ", e->prefix);
		if (e->port)
			buf_addf(out, "th dport %u ", e->port);
		buf_adds(out, "accept\n");
	}
}

void egress_inside_rules(const struct egress_policy *p, bool slirp, const uint32_t *host, size_t n, struct buf *out)
{
	bool list = p->kind == EGRESS_LIST;

	buf_adds(out, "table inet " GATE_TABLE " {\n"
		      "set " GATE_HOSTS " { type ipv4_addr; flags timeout; size 65535; }\n"
		      "set " GATE_SERVICES " { type ipv4_addr . inet_service; flags timeout; size 65535; }\n"
		      /* what goes on inside (the proxy's way to the app too) is nobody's business and costs nothing */
		      "chain loop_out { type filter hook output priority raw; oifname \"lo\" notrack; }\n"
		      "chain loop_in { type filter hook prerouting priority raw; iifname \"lo\" notrack; }\n"
		      "chain leave { type filter hook output priority filter; policy drop;\n");
	if (list) /* the resolver's time is not the sandbox's own */
		buf_adds(out, "oifname \"lo\" ip daddr " EGRESS_DNS " udp dport 53 "
			      "limit rate over 200/second burst 400 packets drop\n");
	buf_adds(out, "oifname \"lo\" accept\n");
	if (slirp && !list)
		buf_adds(out, "ip daddr " EGRESS_DNS " meta l4proto { tcp, udp } th dport 53 accept\n");
	buf_adds(out, "ip daddr { ");
	egress_forbidden_text(out);
	buf_adds(out, " } reject with icmp type admin-prohibited\n");
	for (size_t i = 0; i < n; i++) {
		buf_adds(out, "ip daddr ");
		add_addr(out, host[i]);
		buf_adds(out, " reject with icmp type admin-prohibited\n");
	}
	buf_adds(out, "ct state established,related accept\n");
	if (list)
		list_rules(p, out);
	else
		buf_adds(out, "meta nfproto ipv4 accept\n");
	buf_adds(out, "reject with icmpx type admin-prohibited\n}\n"
		      "chain arrive { type filter hook input priority filter; policy drop;\n"
		      "iifname \"lo\" accept\n");
	/* Nothing shapes what comes out of a tap: what is too much is dropped. The kernel's bucket holds a second's worth and
	 * the burst. */
	if (slirp && p->bandwidth)
		buf_addf(out, "limit rate over %llu bytes/second burst 65536 bytes drop\n",
			 (unsigned long long)p->bandwidth);
	buf_adds(out, "ct state established,related accept\n}\n}\n");
}

/* -- set-up ----------------------------------------------------------------------------------------------------------- */

struct setup {
	const struct egress_inside *in;
	int netns;
	int init;
	struct rtnl_addresses host; /* with slirp4netns alone */
};

static int enter(int netns, struct err *err)
{
	cleanup_close int owner = -1;

	if (netns_owner(netns, &owner, err) < 0)
		return -1;
	if (owner >= 0 && setns(owner, CLONE_NEWUSER) < 0)
		return err_set(err, errno, "enter the sandbox's user namespace");
	if (setns(netns, CLONE_NEWNET) < 0)
		return err_set(err, errno, "enter the sandbox's network namespace");
	return 0;
}

/* In a worker, for libnftables' memory. */
static int put_rules(void *arg, struct buf *result, struct err *err)
{
	const struct setup *s = arg;
	cleanup_buf struct buf text = BUF_INIT;
	struct rtnl nl = {0};
	int r = -1;

	(void)result;
	egress_inside_rules(s->in->policy, s->in->slirp, s->host.a, s->host.n, &text);
	if (enter(s->netns, err) < 0 || egress_nft(text.data, err) < 0 || rtnl_open(&nl, err) < 0)
		return -1;
	if (s->in->policy->kind != EGRESS_LIST ||
	    rtnl_address(&nl, "lo", (uint32_t)ntohl(inet_addr(EGRESS_DNS)), 32, err) == 0)
		r = rtnl_link_up(&nl, "lo", err);
	rtnl_close(&nl);
	return r;
}

static int open_upstreams(struct resolver *r, struct err *err)
{
	uint32_t addr[RESOLVER_UPSTREAMS];
	size_t n = egress_host_resolvers(addr);

	for (; r->nupstream < n; r->nupstream++) {
		struct sockaddr_in to = {
		    .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(addr[r->nupstream])};
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		r->upstream[r->nupstream] = fd;
		if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
			return err_set(err, errno, "socket to a name server");
	}
	return 0;
}

static int open_clients(struct resolver *r, struct err *err)
{
	struct sockaddr_in at = {
	    .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = inet_addr(EGRESS_DNS)};

	r->clients = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (r->clients < 0 || bind(r->clients, (struct sockaddr *)&at, sizeof at) < 0)
		return err_set(err, errno, "name server of the sandbox");
	return 0;
}

static int set_bandwidth(const struct egress_inside *in, struct err *err)
{
	struct rtnl nl;

	if (!in->slirp || !in->policy->bandwidth)
		return 0;
	if (rtnl_open(&nl, err) < 0)
		return -1;
	int r = rtnl_bandwidth(&nl, "eth0", in->policy->bandwidth, err);
	rtnl_close(&nl);
	return r;
}

static int keep_descriptors(struct gate *g, int *extra[], size_t nextra, struct err *err)
{
	int *all[16];
	int n = 0;

	all[n++] = &g->init;
	if (g->resolver.clients >= 0)
		all[n++] = &g->resolver.clients;
	for (size_t i = 0; i < g->resolver.nupstream; i++)
		all[n++] = &g->resolver.upstream[i];
	for (size_t i = 0; i < nextra; i++)
		if (*extra[i] >= 0)
			all[n++] = extra[i];
	int rc = io_keep_fds(all, n);
	return rc < 0 ? err_set(err, -rc, "descriptors of the gate") : 0;
}

static int drop_privileges(uid_t uid, struct err *err)
{
	const struct confine_path nothing[] = {{0}};

	if (uid && (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || confine_user(uid, uid, err) < 0))
		return -1;
	return confine_files(nothing, err) < 0 ? -1 : confine_syscalls(PROMISE_NET_ADMIN, err);
}

/* The process that stays. Writes a struct err to `report`: its code is 0 when all is in place. */
_Noreturn static void keeper(struct setup *s, int report, int gone)
{
	const struct egress_inside *in = s->in;
	struct gate g = {.resolver = {.policy = in->policy, .clients = -1}, .init = s->init};
	bool list = in->policy->kind == EGRESS_LIST;
	struct err err = ERR_INIT;
	int alive = -1; /* slirp's: it ends when this is closed */
	int *extra[] = {&report, &gone, &alive};

	if (in->spec)
		sandbox_spec_wipe(in->spec);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	setsid(); /* a Ctrl-C at the caller's terminal is not for us */
	prctl(PR_SET_NAME, "spaced-gate", 0, 0, 0);
	if (in->slirp)
		rtnl_host_addresses(&s->host);
	if (worker_run(put_rules, s, NULL, &err) == 0 &&
	    (!in->slirp || slirp_start(in->policy, s->netns, gone, &alive, &err) == 0) &&
	    (!list || open_upstreams(&g.resolver, &err) == 0) && enter(s->netns, &err) == 0 &&
	    set_bandwidth(in, &err) == 0 && (!list || open_clients(&g.resolver, &err) == 0) &&
	    keep_descriptors(&g, extra, 3, &err) == 0 && (!list || nf_open(&g.nf, &err) == 0) &&
	    drop_privileges(in->uid, &err) == 0)
		err.code = 0;
	else if (!err.code)
		err.code = EIO;
	io_write_full(report, &err, sizeof err);
	close(report);
	if (err.code)
		_exit(1);
	gate_run(&g);
}

bool egress_inside_needed(const struct egress_policy *policy, bool slirp)
{
	return policy->kind == EGRESS_LIST || (slirp && policy->kind == EGRESS_INTERNET);
}

int egress_inside_network(void *inside, int netns, int init, struct err *err)
{
	struct egress_inside *in = inside;
	struct setup s = {.in = in, .netns = netns, .init = init};
	cleanup_close int report = -1, gone = -1;
	struct err theirs;
	int p[2], q[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe");
	report = p[0];
	if (pipe2(q, O_CLOEXEC) < 0) {
		close(p[1]);
		return err_set(err, errno, "pipe");
	}
	gone = q[0];
	pid_t pid = fork();
	if (pid == 0) { /* twice: nobody here has to wait for it */
		close(p[0]);
		close(q[0]);
		if (fork() == 0)
			keeper(&s, p[1], q[1]);
		_exit(0);
	}
	int code = errno;
	close(p[1]);
	close(q[1]);
	if (pid < 0)
		return err_set(err, code, "fork");
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (io_read_full(report, &theirs, sizeof theirs) < 0)
		return err_text(err, EIO, "egress: the process that was to connect the sandbox died");
	if (theirs.code) {
		theirs.msg[sizeof theirs.msg - 1] = '\0';
		*err = theirs;
		return err_prefix(err, "egress");
	}
	in->gone = steal_fd(&gone);
	return 0;
}
