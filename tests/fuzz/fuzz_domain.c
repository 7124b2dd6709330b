/* Host names that people bring: what is accepted is written as the route table has it, is not the server's own, and is accepted again
 * as it is. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/route.h"
#include "spaced/domain.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char apex[] = "spaces.example.org";
	char out[DOMAIN_MAX + 1], again[DOMAIN_MAX + 1], folded[ROUTE_HOST_MAX + 1];
	char *text = xstrndup((const char *)data, size);
	struct err err = ERR_INIT;

	if (domain_check(text, apex, out, &err) == 0) {
		const char *name = strncmp(out, "*.", 2) == 0 ? out + 2 : out;
		check(route_canonical_host(STRZ(name), folded) && strcmp(folded, name) == 0);
		check(!domain_covers(out, apex) && !domain_covers("*.spaces.example.org", out));
		check(domain_check(out, apex, again, &err) == 0 && strcmp(out, again) == 0);
	}
	free(text);
	return 0;
}
