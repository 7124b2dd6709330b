/* README.md's header: any bytes give a card or an error, never more. What was taken prints as JSON and as header lines
 * without a line break that we did not put there. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "spaced/space/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct card c;
	struct err err = ERR_INIT;

	if (card_parse((struct str){(const char *)data, size}, &c, &err) == 0) {
		char *json = card_json(&c);
		char *headers = card_response_headers(&c, "http://localhost");
		for (const char *p = headers; *p; p++)
			if (*p == '\n' && (p == headers || p[-1] != '\r'))
				abort();
		if (c.app_port > 65535 || strchr(json, '\n'))
			abort();
		free(json);
		free(headers);
	} else if (!err.msg[0]) {
		abort();
	}
	card_release(&c);
	return 0;
}
