/* See resolver.h. One loop; a question waits in a table of fixed size, for a resolver and then for the gate. */
#include "sandbox/resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/dns.h"

#define WAITING_MAX 64
#define TRY_MS 2000 /* then the next resolver; stubs of libcs ask again after 5 s */
#define TRIES 3

struct question {
	bool used;
	bool at_gate;
	struct question *leader; /* the one about the same name that is being asked for us as well; NULL: it is us */
	uint16_t id;		 /* ours, random */
	size_t asked;		 /* index of the resolver: others have no say */
	unsigned tries;
	uint64_t due; /* CLOCK_MONOTONIC ms */
	struct dns_query query;
	struct sockaddr_in client;
	struct dns_answer answer;
};

struct state {
	const struct resolver *r;
	struct question waiting[WAITING_MAX];
	uint64_t try_ms;
};

static void reply(struct state *s, const struct dns_query *q, const struct sockaddr_in *to, enum dns_rcode rcode,
		  const struct dns_answer *a)
{
	uint8_t out[DNS_MESSAGE];
	size_t n = dns_build_answer(q, rcode, a ? a->a : NULL, a ? a->n : 0, out);

	sendto(s->r->clients, out, n, MSG_DONTWAIT, (const struct sockaddr *)to, sizeof *to);
}

static void finish(struct state *s, struct question *w, enum dns_rcode rcode, const struct dns_answer *a)
{
	for (size_t i = 0; i < WAITING_MAX; i++) {
		struct question *q = &s->waiting[i];
		if (!q->used || (q != w && q->leader != w))
			continue;
		reply(s, &q->query, &q->client, rcode, a);
		q->used = false;
	}
}

/* Asks the next resolver; a new id each time, so that a late answer is nobody's. */
static void ask(struct state *s, struct question *w)
{
	uint8_t out[DNS_MESSAGE];

	if (w->tries == TRIES || s->r->nupstream == 0 || getrandom(&w->id, sizeof w->id, 0) != sizeof w->id) {
		finish(s, w, DNS_SERVFAIL, NULL);
		return;
	}
	size_t n = dns_build_query(w->id, w->query.name, out);
	w->asked = w->tries++ % s->r->nupstream;
	send(s->r->upstream[w->asked], out, n, MSG_DONTWAIT);
	w->due = io_now_ms() + s->try_ms;
}

static bool same_question(const struct question *w, const struct dns_query *q, const struct sockaddr_in *from)
{
	return w->used && w->query.id == q->id && w->client.sin_port == from->sin_port &&
	       strcmp(w->query.name, q->name) == 0;
}

static void on_client(struct state *s)
{
	uint8_t in[DNS_RECEIVE];
	struct sockaddr_in from = {0};
	socklen_t len = sizeof from;
	struct question *free_one = NULL, *leader = NULL;
	struct dns_query q;
	ssize_t n = recvfrom(s->r->clients, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&from, &len);

	if (n <= 0 || len != sizeof from || dns_parse_query(in, (size_t)n, &q) < 0)
		return;
	if (!q.name[0] || !egress_name_listed(s->r->policy, q.name)) {
		reply(s, &q, &from, DNS_REFUSED, NULL);
		return;
	}
	if (q.type != DNS_TYPE_A) { /* there is no IPv6, and text is a way out */
		reply(s, &q, &from, DNS_OK, NULL);
		return;
	}
	for (size_t i = 0; i < WAITING_MAX; i++) {
		if (same_question(&s->waiting[i], &q, &from))
			return;
		if (!s->waiting[i].used)
			free_one = &s->waiting[i];
		else if (!s->waiting[i].leader && strcmp(s->waiting[i].query.name, q.name) == 0)
			leader = &s->waiting[i];
	}
	if (!free_one)
		return;
	*free_one = (struct question){.used = true, .leader = leader, .query = q, .client = from};
	/* A name is asked for once at a time: with 64 ids under way for one, an app could have its friend outside guess one of
	 * them 64 times as easily (RFC 5452, section 5), and so list an address of its own. */
	if (!leader)
		ask(s, free_one);
}

static void drop_forbidden(struct dns_answer *a)
{
	size_t kept = 0;

	for (size_t i = 0; i < a->n; i++)
		if (!egress_forbidden(a->a[i].addr))
			a->a[kept++] = a->a[i];
	a->n = kept;
}

static void to_gate(struct state *s, struct question *w)
{
	const struct egress_policy *p = s->r->policy;
	cleanup_buf struct buf tuples = BUF_INIT;
	cleanup_buf struct buf b = BUF_INIT;
	uint32_t n = 0;

	for (size_t e = 0; e < p->n; e++) {
		if (!egress_name_matches(&p->entries[e], w->query.name))
			continue;
		for (size_t i = 0; i < w->answer.n; i++, n++) {
			put_u32(&tuples, (uint32_t)e);
			put_u32(&tuples, w->answer.a[i].addr);
			put_u32(&tuples, w->answer.a[i].ttl);
		}
	}
	put_u32(&b, n);
	buf_add(&b, tuples.data, tuples.len);
	w->at_gate = true;
	w->due = io_now_ms() + s->try_ms;
	/* slot and id: an answer that comes too late is for nobody */
	uint32_t id = (uint32_t)w->id << 8 | (1U + (uint32_t)(w - s->waiting));
	if (frame_send(s->r->gate, RESOLVER_ADMIT, id, b.data, b.len, NULL, 0) < 0)
		finish(s, w, DNS_SERVFAIL, NULL);
}

static void on_upstream(struct state *s, size_t resolver)
{
	uint8_t in[DNS_RECEIVE];
	ssize_t n = recv(s->r->upstream[resolver], in, sizeof in, MSG_DONTWAIT);

	for (size_t i = 0; n > 0 && i < WAITING_MAX; i++) {
		struct question *w = &s->waiting[i];
		if (!w->used || w->leader || w->at_gate || w->asked != resolver ||
		    dns_parse_answer(in, (size_t)n, w->query.name, &w->answer) < 0 || w->answer.id != w->id)
			continue;
		size_t had = w->answer.n;
		drop_forbidden(&w->answer);
		if (w->answer.rcode == DNS_NXDOMAIN)
			finish(s, w, DNS_NXDOMAIN, NULL);
		else if (w->answer.rcode != DNS_OK)
			ask(s, w);
		else if (w->answer.n)
			to_gate(s, w);
		else
			finish(s, w, had ? DNS_REFUSED : DNS_OK, NULL);
		return;
	}
}

static void on_gate(struct state *s)
{
	struct frame f;
	int n = frame_recv(s->r->gate, &f);

	if (n == -EAGAIN)
		return;
	if (n <= 0)
		_exit(0);
	struct reader r = reader_of(f.payload, f.len);
	bool all = get_u8(&r);
	uint32_t slot = (f.id & 255) - 1;
	struct question *w = slot < WAITING_MAX ? &s->waiting[slot] : NULL;
	if (get_ok(&r) && f.type == RESOLVER_ADMITTED && w && w->used && w->at_gate && w->id == f.id >> 8)
		finish(s, w, all ? DNS_OK : DNS_SERVFAIL, all ? &w->answer : NULL);
	frame_release(&f);
}

static int next_due(struct state *s)
{
	uint64_t now = io_now_ms(), next = now + 60000;

	for (size_t i = 0; i < WAITING_MAX; i++) {
		struct question *w = &s->waiting[i];
		bool own = w->used && !w->leader;
		if (own && w->due <= now && !w->at_gate)
			ask(s, w);
		else if (own && w->due <= now)
			finish(s, w, DNS_SERVFAIL, NULL);
		if (own && w->used && w->due < next)
			next = w->due;
	}
	return next > now ? (int)(next - now) : 0;
}

_Noreturn void resolver_run(const struct resolver *r)
{
	static struct state s;
	struct pollfd p[2 + RESOLVER_UPSTREAMS] = {{r->gate, POLLIN, 0}, {r->clients, POLLIN, 0}};
	const struct confine_path nothing[] = {{0}};
	struct err err = ERR_INIT;

	s.r = r;
	s.try_ms = r->try_ms ? r->try_ms : TRY_MS;
	prctl(PR_SET_NAME, "spaced-resolver", 0, 0, 0);
	if (confine_files(nothing, &err) < 0 || confine_syscalls(PROMISE_BASE, &err) < 0)
		_exit(1);
	for (size_t i = 0; i < r->nupstream; i++)
		p[2 + i] = (struct pollfd){r->upstream[i], POLLIN, 0};
	for (;;) {
		if (poll(p, 2 + r->nupstream, next_due(&s)) < 0)
			continue;
		if (p[0].revents)
			on_gate(&s);
		if (p[1].revents)
			on_client(&s);
		for (size_t i = 0; i < r->nupstream; i++)
			if (p[2 + i].revents)
				on_upstream(&s, i);
	}
}
