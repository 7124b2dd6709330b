/* The table behind the filter; see seccomp_profile.c. */
#ifndef SANDBOX_SECCOMP_PROFILE_H
#define SANDBOX_SECCOMP_PROFILE_H

#include <stdint.h>

/* (argument `arg` & mask) == value; a mask of 0 ends the list. */
struct seccomp_arg {
	unsigned arg;
	uint64_t mask, value;
};

struct seccomp_rule {
	const char *name;
	struct seccomp_arg args[3];
	int refuse; /* 0: allowed; SECCOMP_PRETEND: has no effect and succeeds; else the errno */
};
#define SECCOMP_PRETEND (-1)

extern const char *const seccomp_allowed[]; /* NULL-ended */
extern const char *const seccomp_refused[];
extern const struct seccomp_rule seccomp_rules[]; /* ended by .name == NULL */

#endif
