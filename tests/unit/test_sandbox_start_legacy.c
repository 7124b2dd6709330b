/* test_sandbox_start.c once more, on a kernel or under a filter that has neither the new mount API nor openat2(2). */
#include <stdlib.h>

#include "tests/unit/test_sandbox_start.c" // NOLINT(bugprone-suspicious-include): the same tests once more

__attribute__((constructor)) static void force(void)
{
	setenv("SPACED_FORCE", "mount_legacy,no_openat2", 1);
}
