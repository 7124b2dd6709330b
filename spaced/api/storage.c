/* Persistent storage of a Space, as Hugging Face's clients ask for it and with sizes of our own, and what a running Space
 * uses of its limits. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"

static void set(struct call *c, uint64_t bytes)
{
	struct err err = ERR_INIT;

	if (spaces_storage(c->a->parts.spaces, c->space.id, bytes, &err) < 0)
		call_fail(c, &err);
	else
		call_runtime_now(c);
}

/* {"tier": "small", "medium" or "large"}, or {"size": "5G"}. */
void space_storage_set(struct call *c)
{
	const char *tier = json_string_value(json_object_get(c->body, "tier"));
	const char *size = json_string_value(json_object_get(c->body, "size"));
	uint64_t bytes = tier ? json_storage_bytes(tier) : 0;

	if ((tier && size) || (size && config_parse_size(size, &bytes) < 0) || !bytes)
		call_error(c, 400, NULL, "tier is small, medium or large; or give a size such as 5G");
	else
		set(c, bytes);
}

void space_storage_off(struct call *c)
{
	set(c, 0);
}

/* ---- usage ---- */

/* Outlives its call when the client goes away first. */
struct usage_wait {
	struct call *c; /* NULL: nobody waits */
};

static json_t *disk_json(const struct disk_usage *d)
{
	char used[16], size[16];

	if (!d->size)
		return json_null();
	limits_bytes(d->used, used);
	limits_bytes(d->size, size);
	json_t *j = json_pack("{s:I, s:I, s:I, s:I}", "used", (json_int_t)d->used, "size", (json_int_t)d->size,
			      "inodesUsed", (json_int_t)d->inodes_used, "inodes", (json_int_t)d->inodes);
	cleanup_free char *summary = xasprintf("%s of %s, %llu of %llu files", used, size,
					       (unsigned long long)d->inodes_used, (unsigned long long)d->inodes);
	json_object_set_new(j, "summary", json_string(summary));
	return j;
}

static json_t *memory_json(const struct place_stats *st)
{
	char now[16], peak[16], limit[16];

	limits_bytes(st->memory, now);
	limits_bytes(st->memory_peak, peak);
	limits_bytes(st->memory_limit, limit);
	cleanup_free char *summary =
	    xasprintf("%s of %s, at most %s so far, %llu killed", now, st->memory_limit ? limit : "the host's", peak,
		      (unsigned long long)st->oom_kills);
	return json_pack("{s:I, s:I, s:I, s:I, s:s}", "used", (json_int_t)st->memory, "limit",
			 (json_int_t)st->memory_limit, "peak", (json_int_t)st->memory_peak, "killed",
			 (json_int_t)st->oom_kills, "summary", summary);
}

static void answer(void *ctx, const char *instance, const struct place_stats *st, const struct err *err)
{
	cleanup_free struct usage_wait *u = ctx;

	if (!u->c)
		return;
	u->c->usage = NULL;
	if (!st) { /* it does not run: there is nothing to tell */
		call_json(u->c, 200, json_object());
		return;
	}
	cleanup_free char *cpu = xasprintf("%.1f s, held back %.1f s at %g CPUs", (double)st->cpu_usec / 1e6,
					   (double)st->throttled_usec / 1e6, st->cpu_milli / 1000.0);
	cleanup_free char *pids = xasprintf("%u of %u", st->pids, st->pids_limit);
	json_t *j = json_pack("{s:s, s:o, s:o, s:o}", "instance", instance, "memory", memory_json(st), "disk",
			      disk_json(&st->top), "data", disk_json(&st->data));
	json_object_set_new(j, "cpu",
			    json_pack("{s:I, s:I, s:f, s:s}", "usec", (json_int_t)st->cpu_usec, "throttledUsec",
				      (json_int_t)st->throttled_usec, "limit", st->cpu_milli / 1000.0, "summary", cpu));
	json_object_set_new(
	    j, "processes",
	    json_pack("{s:i, s:i, s:s}", "used", (int)st->pids, "limit", (int)st->pids_limit, "summary", pids));
	if (u->c->me.admin && *st->cgroup) /* of the host, and no owner's business */
		json_object_set_new(j, "cgroup", json_string(st->cgroup));
	call_json(u->c, 200, j);
}

void space_usage_get(struct call *c)
{
	c->usage = xcalloc(1, sizeof *c->usage);
	c->usage->c = c;
	spaces_stats(c->a->parts.spaces, c->space.id, answer, c->usage);
}

void usage_call_gone(struct usage_wait *u)
{
	if (u)
		u->c = NULL;
}
