/* See counters.h. */
#include "proxy/counters.h"

#include <string.h>

const uint32_t duration_ms[DURATIONS - 1] = {5, 25, 100, 250, 500, 1000, 2500, 10000};

const char *refusal_name(enum refusal r)
{
	static const char *const names[REFUSALS] = {
	    [REFUSED_NOT] = "",
	    [REFUSED_CONNECTIONS] = "connections",
	    [REFUSED_CLIENT_CONNECTIONS] = "client-connections",
	    [REFUSED_CLIENT_RATE] = "client-rate",
	    [REFUSED_SPACE_RATE] = "space-rate",
	    [REFUSED_MALFORMED] = "malformed",
	    [REFUSED_SLOW] = "slow",
	    [REFUSED_HOST] = "host",
	    [REFUSED_ACCESS] = "access",
	    [REFUSED_SPACE_REQUESTS] = "space-requests",
	    [REFUSED_HELD] = "held",
	    [REFUSED_HELD_LONG] = "held-long",
	    [REFUSED_APP] = "app",
	};
	return names[r];
}

void counters_answered(struct counters *c, unsigned status, uint64_t ms, bool endless)
{
	size_t class = 0;

	if (status >= 100 && status <= 599)
		c->n[COUNT_ANSWERED + status / 100 - 1]++;
	if (endless)
		return;
	while (class < DURATIONS - 1 && ms > duration_ms[class])
		class ++;
	c->n[COUNT_DURATION + class]++;
	c->n[COUNT_DURATION_MS] += ms;
}

bool counters_any(const struct counters *c)
{
	for (size_t i = 0; i < COUNTERS; i++)
		if (c->n[i])
			return true;
	return false;
}

bool counters_visited(const struct counters *c)
{
	uint64_t strangers = c->n[COUNT_REFUSED + REFUSED_ACCESS], answered = 0;

	for (size_t i = 0; i < 5; i++)
		answered += c->n[COUNT_ANSWERED + i];
	return c->now[GAUGE_OPEN] || c->n[COUNT_REQUESTS] > strangers || answered > strangers;
}

void counters_put(struct buf *b, const struct counters *c)
{
	uint64_t present = 0;

	for (size_t i = 0; i < COUNTERS; i++)
		present |= (uint64_t)(c->n[i] != 0) << i;
	put_u64(b, present);
	for (size_t i = 0; i < COUNTERS; i++)
		if (c->n[i])
			put_u64(b, c->n[i]);
	for (size_t i = 0; i < GAUGES; i++)
		put_u32(b, c->now[i]);
}

void counters_get(struct reader *rd, struct counters *c)
{
	uint64_t present = get_u64(rd);

	memset(c, 0, sizeof *c);
	if (present >> COUNTERS)
		rd->bad = true;
	for (size_t i = 0; i < COUNTERS && !rd->bad; i++)
		if (present >> i & 1)
			c->n[i] = get_u64(rd);
	for (size_t i = 0; i < GAUGES; i++)
		c->now[i] = get_u32(rd);
}
