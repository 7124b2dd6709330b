/* See gate.h. */
#include "sandbox/gate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"

/* How long an answered address may be reached: as long as the answer lives, and somewhat more for who asks seldom. A
 * connection that stands is not cut. */
#define LIFE_LEAST_S 60
#define LIFE_MOST_S 86400
#define LIFE_MORE_S 60
#define FRESH_MS 30000 /* put in so lately that it need not be put in again: a flood of questions costs no netlink */
#define CACHE 1024
#define RESOLVERS_MAX 20 /* one that dies that often is being attacked: its names stay unresolved */

struct admitted {
	uint32_t addr;
	uint16_t port;
	uint32_t life;
	uint64_t at; /* CLOCK_MONOTONIC ms; 0: empty */
};

bool gate_may(const struct egress_policy *p, uint32_t entry, uint32_t addr)
{
	return entry < p->n && p->entries[entry].name[0] && !egress_forbidden(addr);
}

static uint32_t life_of(uint32_t ttl)
{
	ttl = ttl < LIFE_LEAST_S ? LIFE_LEAST_S : ttl;
	return (ttl > LIFE_MOST_S ? LIFE_MOST_S : ttl) + LIFE_MORE_S;
}

static bool admit(struct gate *g, uint32_t addr, uint16_t port, uint32_t ttl)
{
	static struct admitted cache[CACHE];
	struct admitted *c = &cache[(addr ^ addr >> 16 ^ port * 31U) % CACHE];
	uint8_t key[8] = {0}; /* the parts of a concatenation fill whole words */
	uint32_t be = htonl(addr);
	uint16_t be_port = htons(port);
	uint32_t life = life_of(ttl);
	uint64_t now = io_now_ms();

	if (c->at && c->addr == addr && c->port == port && c->life >= life && now - c->at < FRESH_MS)
		return true;
	memcpy(key, &be, 4);
	memcpy(key + 4, &be_port, 2);
	if (nf_set_add(&g->nf, GATE_TABLE, port ? GATE_SERVICES : GATE_HOSTS, key, port ? 8 : 4, life) < 0)
		return false;
	*c = (struct admitted){addr, port, life, now};
	return true;
}

/* False: what came is malformed, its sender is done. */
static bool on_resolver(struct gate *g, int channel)
{
	const struct egress_policy *p = g->resolver.policy;
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;
	bool all = true;

	if (frame_recv(channel, &f) != 1)
		return false;
	struct reader r = reader_of(f.payload, f.len);
	uint32_t n = get_u32(&r);
	for (uint32_t i = 0; i < n && !r.bad; i++) {
		uint32_t entry = get_u32(&r), addr = get_u32(&r), ttl = get_u32(&r);
		if (r.bad)
			break;
		if (!gate_may(p, entry, addr))
			r.bad = true;
		else
			all &= admit(g, addr, p->entries[entry].port, ttl);
	}
	bool ok = get_ok(&r) && f.type == RESOLVER_ADMIT && f.nfds == 0;
	uint32_t id = f.id;
	frame_release(&f);
	put_u8(&b, all);
	return ok && frame_send(channel, RESOLVER_ADMITTED, id, b.data, b.len, NULL, 0) == 0;
}

/* The channel to it, or -1. It ends with us, and whatever it has become: a kill of ours does not ask it. */
static int start_resolver(struct gate *g, pid_t *out)
{
	int sv[2];

	if (g->resolver.clients < 0 || frame_pair(sv) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		struct resolver r = g->resolver;
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		close(sv[0]);
		close(g->init);
		nf_close(&g->nf);
		r.gate = sv[1];
		io_set_nonblock(r.gate, true);
		resolver_run(&r);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return -1;
	}
	io_set_nonblock(sv[0], true); /* one that does not read its answers may not hold us up */
	*out = pid;
	return sv[0];
}

static void end_resolver(pid_t pid, int channel)
{
	if (channel < 0)
		return;
	close(channel);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

_Noreturn void gate_run(struct gate *g)
{
	pid_t resolver = 0;
	struct pollfd p[2] = {{g->init, POLLIN, 0}, {start_resolver(g, &resolver), POLLIN, 0}};
	int started = 1;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			break;
		if (!p[1].revents || on_resolver(g, p[1].fd))
			continue;
		end_resolver(resolver, p[1].fd);
		p[1].fd = ++started <= RESOLVERS_MAX ? start_resolver(g, &resolver) : -1;
	}
	end_resolver(resolver, p[1].fd);
	_exit(0);
}
