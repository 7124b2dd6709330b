/* See nf.h. The attributes: linux/netfilter/nf_tables.h; the expressions are what `nft --debug=netlink` shows. */
#include "sandbox/nf.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "sandbox/netlink.h"

#define ROOM 8192
#define COMMENT "spaced"
/* libnftnl's NFTNL_UDATA_RULE_COMMENT: type 0, length, text with its zero */
static const char comment[] = "\x00\x07" COMMENT;

int nf_open(struct nf *n, struct err *err)
{
	struct timeval limit = {.tv_sec = 2};

	n->seq = 0;
	n->s = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!n->s)
		return err_set(err, errno, "open a netfilter socket");
	if (mnl_socket_bind(n->s, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(n->s), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
		err_set(err, errno, "bind a netfilter socket");
		nf_close(n);
		return -1;
	}
	return 0;
}

void nf_close(struct nf *n)
{
	if (n->s)
		mnl_socket_close(n->s);
	n->s = NULL;
}

static struct nlmsghdr *put_header(void *room, uint16_t type, uint8_t family, uint16_t flags, uint32_t seq)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(room);
	bool edge = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END;

	h->nlmsg_type = edge ? type : (uint16_t)((NFNL_SUBSYS_NFTABLES << 8) | type);
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = seq;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof *g);
	g->nfgen_family = family;
	g->version = NFNETLINK_V0;
	g->res_id = edge ? htons(NFNL_SUBSYS_NFTABLES) : 0;
	return h;
}

/* -- a transaction: several messages that count together -------------------------------------------------------------- */

struct batch {
	struct nf *n;
	size_t len;
	uint32_t last; /* sequence number of the last request */
	char room[ROOM];
};

static struct nlmsghdr *batch_put(struct batch *b, uint16_t type, uint8_t family, uint16_t flags)
{
	struct nlmsghdr *h = put_header(b->room + b->len, type, family, flags, ++b->n->seq);

	b->last = h->nlmsg_seq;
	return h;
}

static void batch_took(struct batch *b, const struct nlmsghdr *h)
{
	b->len += MNL_ALIGN(h->nlmsg_len);
}

static void batch_begin(struct batch *b, struct nf *n)
{
	*b = (struct batch){.n = n};
	batch_took(b, batch_put(b, NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0));
}

/* 0 or negative errno of the first request that failed; then none has had an effect. */
static int batch_end(struct batch *b)
{
	uint32_t want = b->last;
	char room[ROOM * 2];

	batch_took(b, batch_put(b, NFNL_MSG_BATCH_END, AF_UNSPEC, 0));
	if (mnl_socket_sendto(b->n->s, b->room, b->len) < 0)
		return -errno;
	for (;;) {
		ssize_t len = mnl_socket_recvfrom(b->n->s, room, sizeof room);
		int left = (int)len;
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		for (struct nlmsghdr *h = (struct nlmsghdr *)room; mnl_nlmsg_ok(h, left);
		     h = mnl_nlmsg_next(h, &left)) {
			if (h->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(h) < sizeof(struct nlmsgerr))
				continue;
			const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
			bool ours = h->nlmsg_seq <= want && want - h->nlmsg_seq < 8;
			if (ours && e->error)
				return e->error;
			if (h->nlmsg_seq == want)
				return 0;
		}
	}
}

/* -- sets ----------------------------------------------------------------------------------------------------------- */

static void put_element(struct batch *b, uint16_t type, const char *table, const char *set, const void *key,
			uint16_t len, uint32_t seconds)
{
	struct nlmsghdr *h =
	    batch_put(b, type, NFPROTO_INET, (uint16_t)(NLM_F_ACK | (type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0)));

	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
	struct nlattr *list = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
	struct nlattr *element = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
	struct nlattr *data = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
	mnl_attr_put(h, NFTA_DATA_VALUE, len, key);
	mnl_attr_nest_end(h, data);
	if (type == NFT_MSG_NEWSETELEM)
		mnl_attr_put_u64(h, NFTA_SET_ELEM_TIMEOUT, htobe64(seconds * 1000ULL));
	mnl_attr_nest_end(h, element);
	mnl_attr_nest_end(h, list);
	batch_took(b, h);
}

/* Before Linux 6.12 adding an element that is there does not touch its time: so it is added (no error when it is there),
 * deleted (it is there now) and added, at once. */
int nf_set_add(struct nf *n, const char *table, const char *set, const void *key, uint16_t len, uint32_t seconds)
{
	struct batch b;

	batch_begin(&b, n);
	put_element(&b, NFT_MSG_NEWSETELEM, table, set, key, len, seconds);
	put_element(&b, NFT_MSG_DELSETELEM, table, set, key, len, 0);
	put_element(&b, NFT_MSG_NEWSETELEM, table, set, key, len, seconds);
	return batch_end(&b);
}

/* -- chains --------------------------------------------------------------------------------------------------------- */

int nf_table_present(const char *table)
{
	char room[ROOM] = {0};
	struct err err;
	struct nf n;

	if (nf_open(&n, &err) < 0)
		return -err.code;
	struct nlmsghdr *h = put_header(room, NFT_MSG_GETTABLE, NFPROTO_INET, NLM_F_ACK, ++n.seq);
	mnl_attr_put_strz(h, NFTA_TABLE_NAME, table);
	int r = netlink_ask(n.s, h, NULL, NULL);
	nf_close(&n);
	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

bool nf_chain_present(const char *table, const char *chain)
{
	char room[ROOM] = {0};
	struct err ignored;
	struct nf n;

	if (nf_open(&n, &ignored) < 0)
		return false;
	struct nlmsghdr *h = put_header(room, NFT_MSG_GETCHAIN, NFPROTO_IPV4, NLM_F_ACK, ++n.seq);
	mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, table);
	mnl_attr_put_strz(h, NFTA_CHAIN_NAME, chain);
	int r = netlink_ask(n.s, h, NULL, NULL);
	nf_close(&n);
	return r == 0;
}

struct forwards {
	struct nf_forward *all;
	size_t n;
};

static bool take_text(const struct nlattr *a, char out[128])
{
	if (!a || mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0 || mnl_attr_get_payload_len(a) > 128)
		return false;
	snprintf(out, 128, "%s", mnl_attr_get_str(a));
	return true;
}

static uint32_t be32_of(const struct nlattr *a, uint32_t otherwise)
{
	return a && mnl_attr_get_payload_len(a) == 4 ? ntohl(mnl_attr_get_u32(a)) : otherwise;
}

static int chain_cb(const struct nlmsghdr *h, void *ctx)
{
	const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
	const struct nlattr *have[NFTA_CHAIN_MAX + 1] = {NULL}, *hook = NULL, *a;
	struct nf_forward f = {.family = g->nfgen_family};
	struct forwards *out = ctx;

	mnl_attr_for_each(a, h, sizeof *g) if (mnl_attr_get_type(a) <= NFTA_CHAIN_MAX) have[mnl_attr_get_type(a)] = a;
	if (have[NFTA_CHAIN_HOOK])
		mnl_attr_for_each_nested(a, have[NFTA_CHAIN_HOOK]) if (mnl_attr_get_type(a) == NFTA_HOOK_HOOKNUM) hook =
		    a;
	if ((f.family != NFPROTO_IPV4 && f.family != NFPROTO_INET) || be32_of(hook, 0) != NF_INET_FORWARD ||
	    be32_of(have[NFTA_CHAIN_POLICY], NF_ACCEPT) != NF_DROP || !take_text(have[NFTA_CHAIN_TABLE], f.table) ||
	    !take_text(have[NFTA_CHAIN_NAME], f.chain))
		return MNL_CB_OK;
	out->all = xreallocarray(out->all, out->n + 1, sizeof *out->all);
	out->all[out->n++] = f;
	return MNL_CB_OK;
}

static int rule_cb(const struct nlmsghdr *h, void *ctx)
{
	struct nf_forward *f = ctx;
	const struct nlattr *a;

	mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(a) == NFTA_RULE_USERDATA &&
		    memmem(mnl_attr_get_payload(a), mnl_attr_get_payload_len(a), comment, sizeof comment))
			f->passed = true;
	}
	return MNL_CB_OK;
}

/* 0 or negative errno. */
static int list_forward_drops(struct nf *n, struct forwards *found)
{
	char room[ROOM] = {0};
	int r = netlink_ask(n->s, put_header(room, NFT_MSG_GETCHAIN, AF_UNSPEC, NLM_F_DUMP, ++n->seq), chain_cb, found);

	for (size_t i = 0; r == 0 && i < found->n; i++) {
		struct nf_forward *f = &found->all[i];
		memset(room, 0, sizeof room);
		struct nlmsghdr *h = put_header(room, NFT_MSG_GETRULE, f->family, NLM_F_DUMP, ++n->seq);
		mnl_attr_put_strz(h, NFTA_RULE_TABLE, f->table);
		mnl_attr_put_strz(h, NFTA_RULE_CHAIN, f->chain);
		r = netlink_ask(n->s, h, rule_cb, f);
	}
	return r;
}

int nf_forward_drops(struct nf *n, struct nf_forward **out, size_t *count, struct err *err)
{
	struct forwards found = {0};
	int r = NETLINK_CHANGED;

	for (int i = 0; i < NETLINK_TRIES && r == NETLINK_CHANGED; i++) {
		free(found.all);
		found = (struct forwards){0};
		r = list_forward_drops(n, &found);
	}
	if (r < 0) {
		free(found.all);
		return err_set(err, -r, "read the host's firewall");
	}
	*out = found.all;
	*count = found.n;
	return 0;
}

/* -- a rule, expression by expression --------------------------------------------------------------------------------- */

struct expression {
	struct nlmsghdr *h;
	struct nlattr *outer, *inner;
};

static struct expression expr_begin(struct nlmsghdr *h, const char *name)
{
	struct expression e = {.h = h, .outer = mnl_attr_nest_start(h, NFTA_LIST_ELEM)};

	mnl_attr_put_strz(h, NFTA_EXPR_NAME, name);
	e.inner = mnl_attr_nest_start(h, NFTA_EXPR_DATA);
	return e;
}

static void expr_end(const struct expression *e)
{
	mnl_attr_nest_end(e->h, e->inner);
	mnl_attr_nest_end(e->h, e->outer);
}

static void put_be32(struct nlmsghdr *h, uint16_t attr, uint32_t v)
{
	mnl_attr_put_u32(h, attr, htonl(v));
}

static void put_value(struct nlmsghdr *h, uint16_t attr, const void *p, size_t n)
{
	struct nlattr *data = mnl_attr_nest_start(h, attr);

	mnl_attr_put(h, NFTA_DATA_VALUE, n, p);
	mnl_attr_nest_end(h, data);
}

static void put_cmp(struct nlmsghdr *h, uint32_t op, const void *p, size_t n)
{
	struct expression e = expr_begin(h, "cmp");

	put_be32(h, NFTA_CMP_SREG, NFT_REG_1);
	put_be32(h, NFTA_CMP_OP, op);
	put_value(h, NFTA_CMP_DATA, p, n);
	expr_end(&e);
}

static void put_name_begins(struct nlmsghdr *h, uint32_t key, const char *prefix)
{
	struct expression e = expr_begin(h, "meta");

	put_be32(h, NFTA_META_KEY, key);
	put_be32(h, NFTA_META_DREG, NFT_REG_1);
	expr_end(&e);
	put_cmp(h, NFT_CMP_EQ, prefix, strlen(prefix));
}

static void put_answers(struct nlmsghdr *h)
{
	const uint32_t states =
	    NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED); /* as a register has it: host order */
	const uint32_t zero = 0;
	struct expression e = expr_begin(h, "ct");

	put_be32(h, NFTA_CT_KEY, NFT_CT_STATE);
	put_be32(h, NFTA_CT_DREG, NFT_REG_1);
	expr_end(&e);
	e = expr_begin(h, "bitwise");
	put_be32(h, NFTA_BITWISE_SREG, NFT_REG_1);
	put_be32(h, NFTA_BITWISE_DREG, NFT_REG_1);
	put_be32(h, NFTA_BITWISE_LEN, 4);
	put_value(h, NFTA_BITWISE_MASK, &states, 4);
	put_value(h, NFTA_BITWISE_XOR, &zero, 4);
	expr_end(&e);
	put_cmp(h, NFT_CMP_NEQ, &zero, 4);
}

static void put_accept(struct nlmsghdr *h)
{
	struct expression e = expr_begin(h, "immediate");

	put_be32(h, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	struct nlattr *data = mnl_attr_nest_start(h, NFTA_IMMEDIATE_DATA);
	struct nlattr *verdict = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
	put_be32(h, NFTA_VERDICT_CODE, NF_ACCEPT);
	mnl_attr_nest_end(h, verdict);
	mnl_attr_nest_end(h, data);
	expr_end(&e);
}

int nf_forward_pass(struct nf *n, const struct nf_forward *f, const char *prefix, struct err *err)
{
	struct batch b;

	batch_begin(&b, n);
	for (int back = 0; back < 2; back++) { /* without NLM_F_APPEND: at the head */
		struct nlmsghdr *h = batch_put(&b, NFT_MSG_NEWRULE, f->family, NLM_F_ACK | NLM_F_CREATE);
		mnl_attr_put_strz(h, NFTA_RULE_TABLE, f->table);
		mnl_attr_put_strz(h, NFTA_RULE_CHAIN, f->chain);
		struct nlattr *list = mnl_attr_nest_start(h, NFTA_RULE_EXPRESSIONS);
		put_name_begins(h, back ? NFT_META_OIFNAME : NFT_META_IIFNAME, prefix);
		if (back)
			put_answers(h);
		put_accept(h);
		mnl_attr_nest_end(h, list);
		mnl_attr_put(h, NFTA_RULE_USERDATA, sizeof comment, comment);
		batch_took(&b, h);
	}
	int r = batch_end(&b);
	return r < 0 ? err_set(err, -r, "let sandboxes pass chain %s of table %s", f->chain, f->table) : 0;
}
