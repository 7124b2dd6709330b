/* See egress.h. */
#include "sandbox/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <nftables/libnftables.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/egress_list.h"
#include "sandbox/netns.h"
#include "sandbox/nf.h"
#include "sandbox/rtnl.h"

#define FLOWS_MAX "4096" /* of one sandbox at a time; a host has 65536 and more */
#define NAME "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@" /* an interface's; no quotes of nft */
/* Kinds of interfaces behind which are no neighbours, but what somebody has connected to this host: `ip -d link`. */
#define VIRTUAL                                                                                                        \
	"\"bridge\", \"veth\", \"tun\", \"wireguard\", \"macvlan\", \"ipvlan\", \"vxlan\", \"geneve\", \"vrf\", "      \
	"\"xfrm\""

static uint64_t hash(const char *p, size_t n)
{
	uint64_t h = 14695981039346656037ULL; /* FNV-1a */

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 1099511628211ULL;
	return h;
}

void egress_init(struct egress *e, const char *state, const char *lock)
{
	/* Made from the folder itself, not from its path: folders in closed homes are all seen at one path, each in its own
	 * mount namespace (spaced/role/state.c), and two daemons must never take each other's links for leftovers. */
	struct stat st;
	uint64_t id[2] = {0, 0};
	if (stat(state, &st) == 0) {
		id[0] = st.st_dev;
		id[1] = st.st_ino;
	}
	snprintf(e->tag, sizeof e->tag, "%05x", (unsigned)(hash((const char *)id, sizeof id) & 0xfffff));
	e->lock = lock;
}

/* -- resolvers ---------------------------------------------------------------------------------------------------- */

static size_t resolvers_of(const char *text, bool stubs, uint32_t out[4])
{
	size_t n = 0;

	for (const char *p = text; p && *p && n < 4;) {
		char addr[64];
		struct in_addr in;
		if (sscanf(p, " nameserver %63s", addr) == 1 && inet_pton(AF_INET, addr, &in) == 1) {
			uint32_t a = ntohl(in.s_addr);
			if ((a >> 24 == 127) == stubs && a != 0)
				out[n++] = a;
		}
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	return n;
}

size_t egress_resolvers(const char *resolv_conf, uint32_t out[4])
{
	return resolvers_of(resolv_conf, false, out);
}

/* resolv.conf may name only a stub on loopback; who runs it keeps the real list elsewhere. When nobody does, the stub
 * itself is used (the link then lets packets reach 127/8: only port 53, by the rules). */
size_t egress_host_resolvers(uint32_t out[4])
{
	static const char *const files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf",
					    "/run/NetworkManager/no-stub-resolv.conf",
					    "/run/resolvconf/interface/original"};
	size_t n = 0;

	for (size_t i = 0; i < sizeof files / sizeof *files && n == 0; i++) {
		cleanup_buf struct buf text = BUF_INIT;
		cleanup_free char *real = realpath(files[i], NULL);
		if (real && io_read_file(AT_FDCWD, real, 65536, &text) == 0 && text.len)
			n = egress_resolvers(text.data, out);
	}
	if (n == 0) {
		cleanup_buf struct buf text = BUF_INIT;
		cleanup_free char *real = realpath("/etc/resolv.conf", NULL);
		if (real && io_read_file(AT_FDCWD, real, 65536, &text) == 0 && text.len)
			n = resolvers_of(text.data, true, out);
	}
	return n;
}

/* -- rules -------------------------------------------------------------------------------------------------------- */

static void add_addr(struct buf *b, uint32_t a)
{
	buf_addf(b, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}

static void dns_rules(const char *links, const uint32_t *resolvers, size_t n, struct buf *b)
{
	static const char *const protocols[] = {"udp", "tcp"};

	for (size_t i = 0; n && i < 2; i++) {
		buf_addf(b, "iifname %s ip daddr " EGRESS_DNS " %s dport 53 dnat to ", links, protocols[i]);
		if (n == 1) {
			add_addr(b, resolvers[0]);
		} else {
			buf_addf(b, "numgen random mod %zu map { ", n);
			for (size_t k = 0; k < n; k++) {
				buf_addf(b, "%s%zu : ", k ? ", " : "", k);
				add_addr(b, resolvers[k]);
			}
			buf_adds(b, " }");
		}
		buf_addc(b, '\n');
	}
}

void egress_uplinks(const char *routes, struct buf *out)
{
	char name[64], to[16], mask[16];

	for (const char *p = routes; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (sscanf(p, "%63s %15s %*s %*s %*s %*s %*s %15s", name, to, mask) == 3 &&
		    strcmp(to, "00000000") == 0 && strcmp(mask, "00000000") == 0 && !name[strspn(name, NAME)])
			buf_addf(out, "%s\"%s\"", out->len ? ", " : "", name);
	}
}

/* What others have connected to this host may use it as a router, as if they had turned routing on themselves: containers of
 * Docker that starts after us, virtual machines, tunnels. They call out, and are called where somebody has published them. */
static void foreign_rules(const char *uplinks, struct buf *out)
{
	buf_adds(out, "chain foreign {\nct state established,related accept\nct status dnat accept\n");
	if (*uplinks)
		buf_addf(out, "iifname != { %s } ", uplinks);
	buf_adds(out, "meta iifkind { " VIRTUAL " } accept\ndrop\n}\n");
}

void egress_rules(const char *tag, const uint32_t *resolvers, size_t n, const char *uplinks, struct buf *out)
{
	cleanup_free char *links = xasprintf("\"" EGRESS_PREFIX "%s*\"", tag);
	/* What DNS translation has made, and nothing else, may go to a private address or to the host. */
	static const char dns[] =
	    "ct status dnat ct original ip daddr " EGRESS_DNS " meta l4proto { tcp, udp } th dport 53 "
	    "accept\n";

	/* The host's table of connections is one for all: who fills it cuts off everybody. */
	static const char count[] =
	    "ct state new add @flows { iifname ct count over " FLOWS_MAX " } reject with icmp type admin-prohibited\n";

	buf_adds(out, "set flows { type ifname; flags dynamic; size 65535; }\n");
	buf_adds(out, "chain dns { type nat hook prerouting priority dstnat; policy accept;\n");
	dns_rules(links, resolvers, n, out);
	buf_adds(out, "}\nchain input { type filter hook input priority filter - 5; policy accept;\n");
	buf_addf(out, "iifname %s jump to_host\n}\nchain to_host {\n%s%s", links, count, dns);
	buf_adds(out, "reject with icmp type admin-prohibited\n}\n"
		      "chain forward { type filter hook forward priority filter - 5; policy accept;\n");
	buf_addf(out, "iifname %s jump from_links\noifname %s jump to_links\n", links, links);
	if (uplinks)
		buf_adds(out, "iifname != \"" EGRESS_PREFIX "*\" oifname != \"" EGRESS_PREFIX "*\" jump foreign\n");
	buf_adds(out, "}\n");
	if (uplinks)
		foreign_rules(uplinks, out);
	buf_adds(out, "chain from_links {\n");
	buf_adds(out, "oifname \"" EGRESS_PREFIX "*\" reject with icmp type admin-prohibited\n");
	buf_adds(out, count);
	buf_adds(out, dns);
	buf_adds(out, "ip daddr { ");
	egress_forbidden_text(out);
	buf_adds(out, " } reject with icmp type admin-prohibited\n"
		      "ct state invalid drop\naccept\n}\n"
		      "chain to_links {\nct state established,related accept\ndrop\n}\n"
		      "chain leave { type nat hook postrouting priority srcnat; policy accept;\n");
	buf_addf(out, "iifname %s oifname != %s masquerade\n}\n", links, links);
}

/* The whole table in one transaction: there is never a moment without rules. The empty chain's name is how
 * rules_present() knows that these very rules are there. */
static void rules_text(const char *tag, const char *chains, uint64_t version, struct buf *out)
{
	buf_addf(out,
		 "add table ip spaced_%s\ndelete table ip spaced_%s\ntable ip spaced_%s {\nchain v%016llx { }\n%s}\n",
		 tag, tag, tag, (unsigned long long)version, chains);
	/* Links have no IPv6; should somebody turn it on, it still leads nowhere. */
	buf_addf(out,
		 "add table ip6 spaced_%s\ndelete table ip6 spaced_%s\ntable ip6 spaced_%s {\n"
		 "chain nothing { type filter hook prerouting priority raw; policy accept; iifname \"" EGRESS_PREFIX
		 "%s*\" drop; }\n}\n",
		 tag, tag, tag, tag);
}

int egress_nft(const char *text, struct err *err)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);

	if (!nft)
		return err_set(err, ENOMEM, "nftables");
	nft_ctx_buffer_output(nft);
	nft_ctx_buffer_error(nft);
	int r = nft_run_cmd_from_buffer(nft, text);
	if (r != 0) {
		const char *why = nft_ctx_get_error_buffer(nft);
		err_set(err, 0, "nftables: %.*s", (int)strcspn(why, "\n"), why);
		err->code = EIO;
	}
	nft_ctx_free(nft);
	return r == 0 ? 0 : -1;
}

/* Other people's firewalls: a packet must be accepted by every base chain of a hook. In each that drops by policy
 * (iptables-nft, ufw, Docker), two rules of ours let our links pass; what they may do is said by our own chains.
 * firewalld and iptables-legacy are not touched: doctor names them. Raw netlink: libnftables would have to read rules that
 * newer programs have written, and Debian 12's crashes on some. */
static int pass_foreign_forward(struct err *err)
{
	cleanup_free struct nf_forward *all = NULL;
	size_t count = 0;
	struct nf n;

	if (nf_open(&n, err) < 0)
		return -1;
	int r = nf_forward_drops(&n, &all, &count, err);
	for (size_t i = 0; i < count && r == 0; i++)
		if (!all[i].passed)
			r = nf_forward_pass(&n, &all[i], EGRESS_PREFIX, err);
	nf_close(&n);
	return r;
}

int egress_sysctl(const char *path, const char *value, struct err *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : io_write_full(fd, value, strlen(value));

	if (r == -ENOENT)
		return 0;
	return r < 0 ? err_set(err, -r, "set %s", path) : 0;
}

/* Turns routing on. Where it was off, the host must not become a router for its neighbours: remembered (with the boot id)
 * in the lock file, since a later spawner finds it on. */
static int routing(int lock, bool *guard, struct err *err)
{
	static const char path[] = "/proc/sys/net/ipv4/ip_forward";
	cleanup_buf struct buf now = BUF_INIT;
	cleanup_buf struct buf boot = BUF_INIT;
	char noted[64] = "";

	if (io_read_file(AT_FDCWD, path, 16, &now) < 0 ||
	    io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 63, &boot) < 0 || boot.len == 0)
		return err_set(err, EIO, "read %s", path);
	ssize_t n = pread(lock, noted, sizeof noted - 1, 0);
	*guard = n == (ssize_t)boot.len && memcmp(noted, boot.data, boot.len) == 0;
	if (now.len && now.data[0] == '1')
		return 0;
	*guard = true;
	if (ftruncate(lock, 0) < 0 || pwrite(lock, boot.data, boot.len, 0) != (ssize_t)boot.len)
		return err_set(err, errno, "note that routing was off");
	return 0;
}

int egress_ensure(const struct egress *e, struct err *err)
{
	cleanup_close int lock = open(e->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	cleanup_buf struct buf chains = BUF_INIT;
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_buf struct buf routes = BUF_INIT;
	cleanup_buf struct buf uplinks = BUF_INIT;
	uint32_t resolvers[4];
	char table[32];
	char version[32];
	bool guard = false;

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_set(err, errno, "lock %s", e->lock);
	if (routing(lock, &guard, err) < 0)
		return -1;
	if (guard && io_read_file(AT_FDCWD, "/proc/net/route", 1 << 20, &routes) == 0 && routes.len)
		egress_uplinks(routes.data, &uplinks);
	buf_adds(&uplinks, "");
	egress_rules(e->tag, resolvers, egress_host_resolvers(resolvers), guard ? uplinks.data : NULL, &chains);
	uint64_t v = hash(chains.data, chains.len);
	snprintf(table, sizeof table, "spaced_%s", e->tag);
	snprintf(version, sizeof version, "v%016llx", (unsigned long long)v);
	if (!nf_chain_present(table, version)) {
		rules_text(e->tag, chains.data, v, &text);
		if (egress_nft(text.data, err) < 0 || pass_foreign_forward(err) < 0)
			return -1;
	}
	return egress_sysctl("/proc/sys/net/ipv4/ip_forward", "1", err); /* after the rules: never open in between */
}

int egress_remove_rules(const struct egress *e, struct err *err)
{
	cleanup_free char *text = xasprintf("add table ip spaced_%s\ndelete table ip spaced_%s\n"
					    "add table ip6 spaced_%s\ndelete table ip6 spaced_%s\n",
					    e->tag, e->tag, e->tag, e->tag);
	return egress_nft(text, err);
}

/* -- probe -------------------------------------------------------------------------------------------------------- */

bool egress_probe(struct buf *why)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	struct rtnl nl;
	uint32_t dns[4];
	cleanup_close int netns = netns_make(&err);
	char name[16];

	if (netns < 0 || rtnl_open(&nl, &err) < 0) {
		buf_addf(why, "egress: %s\n", err.msg);
		return false;
	}
	snprintf(name, sizeof name, EGRESS_PREFIX "probe%05x", (unsigned)getpid() & 0xfffff);
	int r = rtnl_veth(&nl, name, "eth0", netns, 1500, &err);
	rtnl_link_delete(&nl, name, NULL);
	rtnl_close(&nl);
	int firewalld = r == 0 ? nf_table_present("firewalld") : 0;
	if (firewalld < 0)
		r = err_set(&err, -firewalld, "nf_tables");
	if (r < 0) {
		buf_addf(why, "egress: %s\n", err.msg);
		return false;
	}
	if (firewalld)
		buf_adds(why, "egress: firewalld is active: run firewall-cmd --permanent --zone=trusted "
			      "--add-interface='" EGRESS_PREFIX "+' when Spaces cannot reach the Internet\n");
	if (io_read_file(AT_FDCWD, "/proc/net/ip_tables_names", 4096, &text) == 0 && text.data &&
	    strstr(text.data, "filter"))
		buf_adds(why, "egress: iptables-legacy rules are active: if their FORWARD policy is DROP, run "
			      "iptables-legacy -I FORWARD -i " EGRESS_PREFIX "+ -j ACCEPT and the same with -o\n");
	size_t n = egress_host_resolvers(dns);
	if (n == 0)
		buf_adds(why, "egress: the host has no IPv4 name server in resolv.conf: no DNS inside\n");
	return true;
}
