/* When a limit is felt: what the kernel counts and how full the disks are, turned into sentences for the owner of an app,
 * each at the right time and not too often. Pure, for tests; limit_watch.c looks, for the spawner, and `sandbox run`.
 *
 * Kinds are told apart so that a full disk does not hide a killed process. A kind that goes on is told after a minute,
 * then two, four ... up to an hour; what happened in between is in the next sentence. */
#ifndef SANDBOX_LIMITS_H
#define SANDBOX_LIMITS_H

#include "sandbox/cgroup.h"
#include "sandbox/usage.h"

enum limit_kind { LIMIT_MEMORY, LIMIT_PIDS, LIMIT_CPU, LIMIT_TOP, LIMIT_DATA, LIMIT_KINDS };
const char *limit_kind_name(enum limit_kind k); /* "memory", "processes", "cpu", "disk", "data" */

#define LIMIT_TICK_MS 10000 /* between two looks at what has to be looked for */
#define LIMIT_MINUTE 6	    /* so many of them */
#define LIMIT_SENTENCE 200

struct limit_watch {
	bool begun; /* `told` holds what the counters were when we came */
	struct cgroup_stats told;
	uint64_t oom_kills;		      /* at the last look */
	uint64_t oom_at;		      /* ms, when they were seen to grow; 0: never */
	uint64_t held_back[LIMIT_MINUTE + 1]; /* at the last ticks, the newest first */
	uint64_t ticked;		      /* ms */
	unsigned ticks;			      /* of these, at most LIMIT_MINUTE + 1 */
	bool slow, full[LIMIT_KINDS];
	struct {
		uint64_t at, wait; /* ms: told then, and not again for so long */
	} quiet[LIMIT_KINDS];
};
typedef void (*limit_say)(void *ctx, enum limit_kind kind, const char *sentence);

/* One look. `use` may be NULL: the disks are not looked at. Calls `say` for each kind about which there is something to say.
 * The first look only takes the counters as they are, unless `fresh`: the sandbox has just been started. */
void limits_look(struct limit_watch *w, const struct cgroup_stats *s, const struct usage *use, uint64_t now, bool fresh,
		 limit_say say, void *ctx);
/* "used 512 MiB of 512 MiB", from the peak and the limit. */
void limits_memory(const struct cgroup_stats *s, char *dst, size_t size);
/* "1.5 GiB": three digits at most. */
void limits_bytes(uint64_t n, char dst[16]);

#endif
