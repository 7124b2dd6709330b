/* A file of an operator's: any bytes are a list or an error that names the line. Every entry taken reads again as the same,
 * and none lies within what is never reachable. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/egress_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	char **list = egress_list_parse((struct str){(const char *)data, size}, &err);

	if (!list && !err.msg[0])
		abort();
	for (char **p = list; p && *p; p++) {
		struct egress_entry e;
		if (egress_entry_parse(STRZ(*p), &e, &err) < 0 || strlen(e.name) > EGRESS_NAME_MAX)
			abort();
		if (!e.name[0] && e.prefix == 32 && egress_forbidden(e.addr))
			abort();
		if (e.name[0] && strpbrk(e.name, " \n{}@\"/:;"))
			abort();
	}
	egress_list_free(list);
	return 0;
}
