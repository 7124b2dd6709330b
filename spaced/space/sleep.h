/* When an app goes to sleep, and how deep. Pure; sleep.c acts on it.
 *
 *   running --freeze-after--> frozen --page-out-after--> frozen, in swap --sleep-after--> stopped
 *
 * A visit: back to running, from each. Frozen, it uses no CPU and is back in milliseconds; its memory stays, until it is paged
 * out. The stage of all three is SLEEPING. */
#ifndef SPACED_SPACE_SLEEP_H
#define SPACED_SPACE_SLEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How an instance goes to sleep and comes back. In all but the first its host is held at the proxies. */
enum sleep_state {
	SLEEP_AWAKE,
	SLEEP_QUIETING, /* the proxies are asked whether anything is in flight */
	SLEEP_FREEZING,
	SLEEP_FROZEN,
	SLEEP_THAWING,
};
enum sleep_step { SLEEP_STAY, SLEEP_FREEZE, SLEEP_PAGE_OUT, SLEEP_STOP };

/* The host's: its configuration in seconds, 0: never; and what it can do. */
struct sleep_host {
	uint32_t freeze_s, page_out_s, stop_s;
	bool can_freeze, can_page_out;
};
struct sleep_rule {
	uint64_t freeze_ms, page_out_ms, stop_ms; /* without a visit; 0: never */
};
/* `own_s` is the Space's own sleep time: 0 as the host's; -1 never, and then it is not frozen either. */
struct sleep_rule sleep_rule_of(const struct sleep_host *host, int32_t own_s);

struct sleep_view {
	enum sleep_state state;
	bool paged_out;
	uint64_t idle_ms; /* since the last activity; what is in flight and says nothing, the proxies know */
};
enum sleep_step sleep_decide(const struct sleep_rule *rule, const struct sleep_view *v);

/* May something be paged out? Not on a host that cannot; and while swap was found full, or not there, one instance a minute tries
 * whether it has room again. */
#define SWAP_RETRY_MS 60000
struct swap_view {
	bool never, full;
	uint64_t try_at; /* monotonic ms: not before */
};
bool swap_may(const struct swap_view *v, uint64_t now);
void swap_tried(struct swap_view *v, uint64_t now); /* one is under way */
/* `code`: of errno.h, 0: it is done. True: the same instance may be tried again. */
bool swap_ended(struct swap_view *v, int code, uint64_t now);

/* The host's memory is short: which one to stop, the frozen one that was visited longest ago; -1: none. */
int sleep_victim(const struct sleep_view *v, size_t n);

#endif
