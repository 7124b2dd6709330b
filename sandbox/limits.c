/* See limits.h. */
#include "sandbox/limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIB (1ULL << 20)
#define MINUTE_MS 60000
#define HOUR_MS (60ULL * MINUTE_MS)
#define SLOW_PERCENT 50 /* of a minute held back: more than a burst */

const char *limit_kind_name(enum limit_kind k)
{
	static const char *const names[LIMIT_KINDS] = {"memory", "processes", "cpu", "disk", "data"};

	return (unsigned)k < LIMIT_KINDS ? names[k] : "limit";
}

void limits_bytes(uint64_t n, char dst[16])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double v = (double)n;
	size_t u = 0;

	while (v >= 1023.5 && u + 1 < sizeof units / sizeof *units) {
		v /= 1024;
		u++;
	}
	/* "2 GiB", "1.5 GiB", "23.4 MiB", "512 MiB" */
	bool whole = v >= 99.95 || v - (double)(uint64_t)v < 0.05 || v - (double)(uint64_t)v >= 0.95;
	snprintf(dst, 16, "%.*f %s", whole ? 0 : 1, v, units[u]);
}

/* Of the same unit as the limit, or a few bytes less than the limit would read as another number. */
void limits_memory(const struct cgroup_stats *s, char *dst, size_t size)
{
	uint64_t peak = s->memory_peak ? s->memory_peak : s->memory_limit;

	snprintf(dst, size, "used %" PRIu64 " MiB of %" PRIu64 " MiB", (peak + (1U << 19)) >> 20,
		 (s->memory_limit + (1U << 19)) >> 20);
}

/* May it be said now? Then the next time is a while later, the longer the more often it comes. */
static bool may(struct limit_watch *w, enum limit_kind k, uint64_t now)
{
	bool before = w->quiet[k].wait != 0;
	uint64_t since = now - w->quiet[k].at;

	if (before && since < w->quiet[k].wait)
		return false;
	if (before && since < 2 * w->quiet[k].wait)
		w->quiet[k].wait = w->quiet[k].wait * 2 < HOUR_MS ? w->quiet[k].wait * 2 : HOUR_MS;
	else
		w->quiet[k].wait = MINUTE_MS;
	w->quiet[k].at = now;
	return true;
}

static void look_memory(struct limit_watch *w, const struct cgroup_stats *s, uint64_t now, limit_say say, void *ctx)
{
	char used[80], text[LIMIT_SENTENCE];
	uint64_t n = s->oom_kills - w->told.oom_kills;

	if (s->oom_kills > w->oom_kills)
		w->oom_at = now;
	w->oom_kills = s->oom_kills;
	if (s->oom_kills <= w->told.oom_kills || !may(w, LIMIT_MEMORY, now))
		return;
	w->told.oom_kills = s->oom_kills;
	limits_memory(s, used, sizeof used);
	if (n == 1)
		snprintf(text, sizeof text, "memory: a process was killed: the app %s", used);
	else
		snprintf(text, sizeof text, "memory: %" PRIu64 " processes were killed: the app %s", n, used);
	say(ctx, LIMIT_MEMORY, text);
}

static void look_pids(struct limit_watch *w, const struct cgroup_stats *s, uint64_t now, limit_say say, void *ctx)
{
	char text[LIMIT_SENTENCE];

	if (s->refused <= w->told.refused || !may(w, LIMIT_PIDS, now))
		return;
	w->told.refused = s->refused;
	/* Each refusal means that all were taken, whatever is running by now. */
	snprintf(text, sizeof text, "processes: %u of %u: new ones were refused", s->pids_limit, s->pids_limit);
	say(ctx, LIMIT_PIDS, text);
}

/* The quota's periods that were used up, of all that a minute has. Told when it begins; once it was better, again. */
static void look_cpu(struct limit_watch *w, const struct cgroup_stats *s, uint64_t now, limit_say say, void *ctx)
{
	char text[LIMIT_SENTENCE];

	if (w->ticks && now - w->ticked < LIMIT_TICK_MS - LIMIT_TICK_MS / 20)
		return;
	w->ticked = now;
	memmove(w->held_back + 1, w->held_back, sizeof w->held_back - sizeof w->held_back[0]);
	w->held_back[0] = s->held_back;
	if (w->ticks <= LIMIT_MINUTE)
		w->ticks++;
	if (w->ticks <= LIMIT_MINUTE)
		return;
	uint64_t periods = MINUTE_MS * 1000ULL / CGROUP_PERIOD_USEC;
	uint64_t percent = (w->held_back[0] - w->held_back[LIMIT_MINUTE]) * 100 / periods;
	bool slow = percent >= SLOW_PERCENT;
	if (slow && !w->slow && may(w, LIMIT_CPU, now)) {
		w->slow = true;
		snprintf(text, sizeof text, "CPU: held back %u %% of the last minute at %g CPUs",
			 percent > 100 ? 100 : (unsigned)percent, s->cpu_milli / 1000.0);
		say(ctx, LIMIT_CPU, text);
	}
	if (!slow)
		w->slow = false;
}

/* Full is when the last percent is begun, or the last MiB: most writes want more. No more when a twentieth is free again. */
static void look_disk(struct limit_watch *w, const struct disk_usage *d, enum limit_kind k, uint64_t now, limit_say say,
		      void *ctx)
{
	const char *name = k == LIMIT_DATA ? USAGE_DATA : "disk";
	char used[16], size[16], text[LIMIT_SENTENCE];
	uint64_t left = d->size - d->used;
	bool bytes = d->size && (left <= d->size / 100 || (left < MIB && left <= d->size / 20));
	bool inodes = d->inodes && d->inodes_used >= d->inodes - d->inodes / 100;

	if ((bytes || inodes) && !w->full[k] && may(w, k, now)) {
		w->full[k] = true;
		limits_bytes(d->used, used);
		limits_bytes(d->size, size);
		if (bytes)
			snprintf(text, sizeof text, "%s: full: %s of %s are used", name, used, size);
		else
			snprintf(text, sizeof text, "%s: full: %" PRIu64 " of %" PRIu64 " files are there", name,
				 d->inodes_used, d->inodes);
		say(ctx, k, text);
	}
	bool room = left > d->size / 20;
	bool names = !d->inodes || d->inodes_used < d->inodes - d->inodes / 20;
	if (room && names)
		w->full[k] = false;
}

void limits_look(struct limit_watch *w, const struct cgroup_stats *s, const struct usage *use, uint64_t now, bool fresh,
		 limit_say say, void *ctx)
{
	if (!w->begun && !fresh) {
		w->told = *s;
		w->oom_kills = s->oom_kills;
	}
	w->begun = true;
	look_memory(w, s, now, say, ctx);
	look_pids(w, s, now, say, ctx);
	if (s->cpu_milli)
		look_cpu(w, s, now, say, ctx);
	if (use) {
		look_disk(w, &use->top, LIMIT_TOP, now, say, ctx);
		look_disk(w, &use->data, LIMIT_DATA, now, say, ctx);
	}
}
