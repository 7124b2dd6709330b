/* See state_home.h. */
#include "base/state_home.h"

#include <unistd.h>

#include "base/buf.h"

char *state_home(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (geteuid() == 0)
		return NULL;
	if (state && *state == '/')
		return xasprintf("%s/spaced", state);
	return home && *home == '/' ? xasprintf("%s/.local/state/spaced", home) : NULL;
}
