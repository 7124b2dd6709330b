/* See rate.h. Instead of tokens a bucket keeps the time at which it will be full again (GCRA: ITU-T I.371, 5.4.1.2): one
 * number, changed by one compare-and-swap. */
#include "proxy/rate.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SETS 4096 /* of each kind */
#define WAYS 4	  /* 64 bytes: a line of the cache */
#define BURST_US (RATE_BURST_S * 1000000ULL)

struct bucket {
	_Atomic uint64_t who;	  /* 0: nobody yet */
	_Atomic uint64_t full_at; /* us; one in the past is full */
};

/* Outlives a program: another layout is another HANDED_RATES. */
struct rates {
	unsigned char key[crypto_shorthash_KEYBYTES];
	_Alignas(64) struct bucket sets[RATE_KINDS][SETS][WAYS];
};

static struct rates *map(int fd, int flags)
{
	struct rates *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	return r == MAP_FAILED ? NULL : r;
}

int rates_create(void)
{
	cleanup_close int fd = memfd_create("spaced-rates", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct rates *r;

	/* Nobody who has it can take its pages from under the others. */
	if (fd < 0 || ftruncate(fd, sizeof *r) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 || !(r = map(fd, 0)))
		return -1;
	randombytes_buf(r->key, sizeof r->key);
	munmap(r, sizeof *r);
	return steal_fd(&fd);
}

struct rates *rates_map(int fd)
{
	struct rates *r = map(fd, fd < 0 ? MAP_ANONYMOUS : 0);

	if (r && fd < 0)
		randombytes_buf(r->key, sizeof r->key);
	return r;
}

uint64_t rates_who(const struct rates *r, const void *p, size_t n)
{
	uint64_t h;

	crypto_shorthash((unsigned char *)&h, p, n, r->key);
	return h ? h : 1;
}

/* Two processes may take the same place at once: then one request is counted for the other, once. */
static struct bucket *find(struct bucket *set, uint64_t who)
{
	struct bucket *fullest = set;
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < WAYS; i++) {
		uint64_t full_at = atomic_load_explicit(&set[i].full_at, memory_order_relaxed);
		if (atomic_load_explicit(&set[i].who, memory_order_relaxed) == who)
			return &set[i];
		if (full_at < least) {
			least = full_at;
			fullest = &set[i];
		}
	}
	atomic_store_explicit(&fullest->who, who, memory_order_relaxed);
	atomic_store_explicit(&fullest->full_at, 0, memory_order_relaxed);
	return fullest;
}

uint32_t rates_take(struct rates *r, enum rate_kind kind, uint64_t who, uint32_t per_second, uint64_t now_ms)
{
	struct bucket *b = find(r->sets[kind][who % SETS], who);
	uint64_t now = now_ms * 1000, each = 1000000 / per_second;
	uint64_t full_at = atomic_load_explicit(&b->full_at, memory_order_relaxed), then;

	do {
		then = (full_at > now ? full_at : now) + each;
		if (then - now > BURST_US)
			return (uint32_t)((then - now - BURST_US + 999) / 1000);
	} while (!atomic_compare_exchange_weak_explicit(&b->full_at, &full_at, then, memory_order_relaxed,
							memory_order_relaxed));
	return 0;
}
