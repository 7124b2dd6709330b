/* See sleep.h. */
#include "spaced/space/sleep.h"

struct sleep_rule sleep_rule_of(uint32_t freeze_s, uint32_t stop_s, int32_t own_s, bool can_freeze)
{
	if (own_s < 0)
		return (struct sleep_rule){0};
	return (struct sleep_rule){.freeze_ms = can_freeze ? freeze_s * 1000ULL : 0,
				   .stop_ms = (own_s ? (uint32_t)own_s : stop_s) * 1000ULL};
}

enum sleep_step sleep_decide(const struct sleep_rule *rule, const struct sleep_view *v)
{
	if (v->state != SLEEP_AWAKE && v->state != SLEEP_FROZEN)
		return SLEEP_STAY;
	if (rule->stop_ms && v->idle_ms >= rule->stop_ms)
		return SLEEP_STOP;
	if (v->state == SLEEP_AWAKE && rule->freeze_ms && v->idle_ms >= rule->freeze_ms)
		return SLEEP_FREEZE;
	return SLEEP_STAY;
}

int sleep_victim(const struct sleep_view *v, size_t n)
{
	int pick = -1;

	for (size_t i = 0; i < n; i++)
		if (v[i].state == SLEEP_FROZEN && (pick < 0 || v[i].idle_ms > v[pick].idle_ms))
			pick = (int)i;
	return pick;
}
