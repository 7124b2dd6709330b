/* spacectl access-log: who asked for what, as the proxies have noted it. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/cli/cli.h"

/* They are ASCII without control bytes already (proxy/access_line.h). */
static void print_lines(const char *p, size_t n)
{
	print_harmless(p, n);
	fflush(stdout);
}

static int access_log(struct cli *c)
{
	cleanup_free char *rest =
	    xasprintf("/access-log?follow=%d%s%s", c->follow, c->tail ? "&tail=" : "", c->tail ? c->tail : "");

	if (c->tail && (!*c->tail || c->tail[strspn(c->tail, "0123456789")])) {
		complain("--tail needs a number");
		return CLI_USAGE;
	}
	cleanup_free char *path = c->nwords ? client_space_path(c->word[0], rest) : xasprintf("/api/admin%s", rest);
	return path ? client_stream(c, path, print_lines) : CLI_USAGE;
}

const struct verb access_verbs[] = {
    {"access-log", NULL, "[OWNER/NAME]", 0, 1, "follow tail",
     "the requests of visitors, a line of JSON each, of all Spaces or of one", access_log},
    {0},
};
