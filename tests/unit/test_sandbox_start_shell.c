/* test_sandbox_start.c once more, each start by way of a sandbox that was made ahead. */
#include <stdlib.h>

#include "tests/unit/test_sandbox_start.c" // NOLINT(bugprone-suspicious-include): the same tests once more

__attribute__((constructor)) static void force(void)
{
	setenv("SPACED_FORCE", "shell", 1);
}
