/* Group G: amounts. */
#include "probe.h"

#include <sys/syscall.h>

/* Amounts that are for the whole host: most of what there is, in one process. */
static long aio_events(long n)
{
	unsigned long context = 0;

	return syscall(SYS_io_setup, n, &context);
}

static long ptys(long n)
{
	while (n--)
		if (open("/dev/ptmx", O_RDWR | O_NOCTTY) < 0)
			return -1;
	return 0;
}

static void g8(void)
{
	in_child("512 events of AIO", aio_events, 512);
	in_child("1000 terminals", ptys, 1000);
}

const struct probe_case abuse_cases[] = {
    {"G8", g8},
    {NULL, NULL},
};
