/* Lists of trusted proxies, and what they say: LIST, then a line for each X-Forwarded-For, an empty one, and one for each
 * X-Forwarded-Proto. A visitor that is not the sender was named, and while he is one of ours nobody further left was. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/trusted.h"

#define FIELDS_MAX 8

static void check(bool ok)
{
	if (!ok)
		abort();
}

static struct str line(const char **p, const char *end)
{
	const char *nl = memchr(*p, '\n', (size_t)(end - *p));
	struct str s = {*p, (size_t)((nl ? nl : end) - *p)};

	*p = nl ? nl + 1 : end;
	return s;
}

static size_t fields(const char **p, const char *end, struct str *out)
{
	size_t n = 0;

	while (*p < end && n < FIELDS_MAX) {
		out[n] = line(p, end);
		if (out[n].n == 0)
			break;
		n++;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of just that size: a byte read behind it is found. */
	char *copy = malloc(size ? size : 1);
	const char *p = copy, *end = copy + size;
	const struct in6_addr from = {.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1}};
	struct str fors[FIELDS_MAX], protos[FIELDS_MAX];
	struct trusted t = {.n = 0};

	if (size)
		memcpy(copy, data, size);
	trusted_add(&t, line(&p, end));
	size_t nfors = fields(&p, end, fors), nprotos = fields(&p, end, protos);
	struct visitor v = trusted_visitor(&t, &from, fors, nfors, protos, nprotos);
	check(nfors || memcmp(&v.address, &from, sizeof from) == 0);
	check(trusted_has(&t, &from) || memcmp(&v.address, &from, sizeof from) == 0);
	check(!v.proto || (nprotos && (strcmp(v.proto, "http") == 0 || strcmp(v.proto, "https") == 0)));
	/* The visitor's own word, further left, changes nothing, unless it is believed. */
	if (nfors && nfors < FIELDS_MAX && !trusted_has(&t, &v.address)) {
		memmove(fors + 1, fors, nfors * sizeof *fors);
		fors[0] = STR("198.51.100.7");
		struct visitor again = trusted_visitor(&t, &from, fors, nfors + 1, protos, nprotos);
		check(memcmp(&v.address, &again.address, sizeof v.address) == 0);
	}
	free(copy);
	return 0;
}
