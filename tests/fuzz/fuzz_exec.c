/* A request for a command inside a sandbox, as pid 1 and the spawner decode it: whatever decodes is within its bounds, and
 * is the same after another way over the wire. */
#include <stdlib.h>
#include <string.h>

#include "sandbox/exec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_buf struct buf once = BUF_INIT;
	cleanup_buf struct buf twice = BUF_INIT;
	struct reader r = reader_of(data, size);
	struct exec_request q;
	struct err err = ERR_INIT;

	if (exec_request_decode(&r, &q, &err) < 0)
		return 0;
	if (!q.argv || !q.argv[0] || !q.argv[0][0] || (q.cwd && q.cwd[0] != '/') || q.rows > UINT16_MAX)
		abort();
	exec_request_encode(&q, &once);
	exec_request_release(&q);
	r = reader_of(once.data, once.len);
	if (exec_request_decode(&r, &q, &err) < 0)
		abort();
	exec_request_encode(&q, &twice);
	exec_request_release(&q);
	if (once.len != twice.len || memcmp(once.data, twice.data, once.len) != 0)
		abort();
	return 0;
}
