/* See sleep.h. */
#include "spaced/space/sleep.h"

#include <errno.h>

struct sleep_rule sleep_rule_of(const struct sleep_host *host, int32_t own_s)
{
	if (own_s < 0)
		return (struct sleep_rule){0};
	return (struct sleep_rule){.freeze_ms = host->can_freeze ? host->freeze_s * 1000ULL : 0,
				   .page_out_ms = host->can_page_out ? host->page_out_s * 1000ULL : 0,
				   .stop_ms = (own_s ? (uint32_t)own_s : host->stop_s) * 1000ULL};
}

static bool due(uint64_t after_ms, const struct sleep_view *v)
{
	return after_ms && v->idle_ms >= after_ms;
}

enum sleep_step sleep_decide(const struct sleep_rule *rule, const struct sleep_view *v)
{
	if (v->state != SLEEP_AWAKE && v->state != SLEEP_FROZEN)
		return SLEEP_STAY;
	if (due(rule->stop_ms, v))
		return SLEEP_STOP;
	if (v->state == SLEEP_AWAKE && due(rule->freeze_ms, v))
		return SLEEP_FREEZE;
	if (v->state == SLEEP_FROZEN && !v->paged_out && due(rule->page_out_ms, v))
		return SLEEP_PAGE_OUT;
	return SLEEP_STAY;
}

bool swap_may(const struct swap_view *v, uint64_t now)
{
	return !v->never && now >= v->try_at;
}

void swap_tried(struct swap_view *v, uint64_t now)
{
	if (v->full)
		v->try_at = now + SWAP_RETRY_MS;
}

bool swap_ended(struct swap_view *v, int code, uint64_t now)
{
	if (code == ENOTSUP) {
		v->never = true;
	} else if (code == ENOSPC) {
		v->full = true;
		v->try_at = now + SWAP_RETRY_MS;
	} else if (code == 0) {
		v->full = false;
		v->try_at = 0;
	}
	return code == ENOSPC;
}

int sleep_victim(const struct sleep_view *v, size_t n)
{
	int pick = -1;

	for (size_t i = 0; i < n; i++)
		if (v[i].state == SLEEP_FROZEN && (pick < 0 || v[i].idle_ms > v[pick].idle_ms))
			pick = (int)i;
	return pick;
}
