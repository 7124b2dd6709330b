/* The command line of `sandbox run`, as a spec. Whatever is wrong with it ends the program with a sentence. */
#ifndef SANDBOX_CMD_OPTIONS_H
#define SANDBOX_CMD_OPTIONS_H

#include <stdbool.h>

#include "sandbox/spec.h"

#define EXIT_CANNOT 125 /* as env(1) and timeout(1) have it */

struct options {
	struct sandbox_spec spec; /* all strings are its own: pid 1 inside wipes the memory of our arguments */
	size_t nenv;
	bool rootless;
	const char *base, *top, *layers[SANDBOX_MAX_LAYERS];
};

extern const char options_usage[];

/* argv[0] is "run". Also ends the program, with 0, on --help. */
void options_parse(struct options *o, int argc, char **argv);

/* "sandbox: SENTENCE" on stderr; status EXIT_CANNOT. */
__attribute__((format(printf, 1, 2))) _Noreturn void die(const char *fmt, ...);

#endif
