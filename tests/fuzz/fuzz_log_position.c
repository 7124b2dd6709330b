/* Where a follower of a log says he is: what is understood names no other folder, and is written again as it came. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/api/log_position.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_buf struct buf again = BUF_INIT;
	struct log_position p;
	uint32_t generation;
	char id[STORE_ID];

	if (!log_position_parse((struct str){(const char *)data, size}, &p))
		return 0;
	check(!strpbrk(p.name, "/.\r\n"));
	log_position_add(&again, p.name, p.offset);
	check(again.len == size && memcmp(again.data, data, size) == 0);
	log_position_run(&p, "0123456789abcdef01234567", &generation);
	if (log_position_build(&p, id))
		check(strcmp(p.name + 6, id) == 0);
	return 0;
}
