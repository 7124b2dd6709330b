/* Host names out of requests and routes out of frames: folding is idempotent, a decoded route is encoded to the same bytes
 * and found again under its name. First byte of the input: which of the two. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/route.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void fold(const char *p, size_t n)
{
	char out[ROUTE_HOST_MAX + 1], again[ROUTE_HOST_MAX + 1];

	if (!route_canonical_host((struct str){p, n}, out))
		return;
	check(strlen(out) > 0 && strlen(out) <= ROUTE_HOST_MAX);
	for (const char *c = out; *c; c++)
		check((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || strchr("-_.[]:", *c));
	check(route_canonical_host(STRZ(out), again) && strcmp(out, again) == 0);
}

static void decode(const void *p, size_t n)
{
	struct reader rd = reader_of(p, n);
	struct route r, again;
	cleanup_buf struct buf b = BUF_INIT;

	if (route_decode(&rd, &r) < 0)
		return;
	route_encode(&r, &b);
	struct reader rd2 = reader_of(b.data, b.len);
	check(route_decode(&rd2, &again) == 0 && get_ok(&rd2));
	check(strcmp(r.host, again.host) == 0 && r.kind == again.kind && r.port == again.port &&
	      r.nendpoints == again.nendpoints);
	struct route_table *t = route_table_new();
	route_table_set(t, &again);
	char host[ROUTE_HOST_MAX + 3];
	snprintf(host, sizeof host, "%s%s", r.host[0] == '*' ? "x" : "", r.host[0] == '*' ? r.host + 1 : r.host);
	check(strlen(host) > ROUTE_HOST_MAX || route_lookup(t, STRZ(host)) != NULL);
	route_table_remove(t, r.host);
	check(route_table_size(t) == 0);
	route_table_free(t);
	route_release(&again);
	route_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	char *copy = xmalloc(size - 1);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		fold(copy, size - 1);
	else
		decode(copy, size - 1);
	free(copy);
	return 0;
}
