/* What a host gives to Spaced and what it lacks, as a list of findings with what mends each. */
#ifndef SPACED_CLI_DOCTOR_H
#define SPACED_CLI_DOCTOR_H

#include <stddef.h>

enum doctor_level {
	DOCTOR_OK,
	DOCTOR_LACKS, /* weaker, or some kind of app is not possible */
	DOCTOR_FAILS, /* nothing can run */
};
struct finding {
	const char *check;
	enum doctor_level level;
	char found[200];
	char fix[240]; /* "": nothing to do */
};
/* Looks at this host; `state` is where the state folder is or will be. The array is static. */
const struct finding *doctor_examine(const char *state, size_t *n);

#endif
