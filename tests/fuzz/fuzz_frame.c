/* Frames between roles: whatever arrives on the socket or in a payload, the readers stay inside it. The first byte
 * chooses: a raw datagram through frame_recv, or a payload through the decoders that take one from another role. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/frame.h"
#include "proxy/route.h"
#include "sandbox/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void raw(const uint8_t *data, size_t size)
{
	static int sv[2] = {-1, -1};
	struct frame f;

	if (sv[0] < 0 && frame_pair(sv) < 0)
		abort();
	if (send(sv[0], data, size, MSG_DONTWAIT) != (ssize_t)size)
		return;
	if (frame_recv(sv[1], &f) == 1)
		frame_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 65536)
		return 0;
	struct reader r = reader_of(data + 1, size - 1);
	switch (data[0] % 4) {
	case 0:
		if (size > 1)
			raw(data + 1, size - 1);
		break;
	case 1: {
		struct sandbox_spec spec;
		struct err err;
		if (sandbox_spec_decode(&r, &spec, &err) == 0) {
			cleanup_buf struct buf again = BUF_INIT;
			sandbox_spec_encode(&spec, &again);
			sandbox_spec_release(&spec);
		}
		break;
	}
	case 2: {
		struct sandbox_exit e;
		(void)sandbox_exit_decode(&r, &e);
		break;
	}
	default: {
		struct route route = {0};
		if (route_decode(&r, &route) == 0)
			route_release(&route);
	}
	}
	return 0;
}
