/* See route_feed.h. */
#include "proxy/route_feed.h"

void feed_init(struct route_feed *f)
{
	*f = (struct route_feed){.served = route_table_new()};
}

void feed_release(struct route_feed *f)
{
	feed_cut(f);
	route_table_free(f->served);
	f->served = NULL;
}

void feed_cut(struct route_feed *f)
{
	route_table_free(f->coming);
	f->coming = NULL;
	f->stale = false;
}

static enum feed_result gap(struct route_feed *f)
{
	bool asked = f->stale;

	feed_cut(f);
	f->stale = true;
	return asked ? FEED_GARBAGE : FEED_ASK;
}

enum feed_result feed_reset(struct route_feed *f, uint64_t version)
{
	route_table_free(f->coming);
	f->coming = route_table_new();
	f->coming_version = version;
	return FEED_WAIT;
}

/* Is this the delta that comes next? Sets `out` to what is to be said when it is not. */
static bool is_next(struct route_feed *f, uint64_t version, enum feed_result *out)
{
	if (!f->coming && f->stale)
		*out = FEED_WAIT;
	else if (f->coming || version != f->version + 1)
		*out = gap(f);
	else
		return true;
	return false;
}

enum feed_result feed_set(struct route_feed *f, uint64_t version, const struct route *r)
{
	enum feed_result result;

	if (f->coming && version == f->coming_version) {
		route_table_set(f->coming, r);
		return FEED_WAIT;
	}
	if (!is_next(f, version, &result))
		return result;
	route_table_set(f->served, r);
	f->version = version;
	return FEED_DONE;
}

enum feed_result feed_remove(struct route_feed *f, uint64_t version, const char *host)
{
	enum feed_result result;

	if (!is_next(f, version, &result))
		return result;
	route_table_remove(f->served, host);
	f->version = version;
	return FEED_DONE;
}

enum feed_result feed_commit(struct route_feed *f, uint64_t version, uint32_t routes)
{
	const struct route_table *t = f->coming ? f->coming : f->served;
	uint64_t have = f->coming ? f->coming_version : f->version;

	if (!f->coming && f->stale)
		return FEED_WAIT;
	if (version != have || route_table_size(t) != routes)
		return gap(f);
	if (f->coming) {
		route_table_free(f->served);
		f->served = f->coming;
		f->coming = NULL;
		f->version = version;
	}
	f->stale = false;
	return FEED_DONE;
}
