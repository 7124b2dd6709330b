/* The parent's side of a start, in steps: sandbox.c is their order. Internal to the launcher. */
#ifndef SANDBOX_LAUNCH_H
#define SANDBOX_LAUNCH_H

#include <sys/stat.h>

#include "sandbox/contain.h"

/* What is being started; all of it is undone by launch_abort(). */
struct sandbox_shell {
	struct contain child;
	struct plan_facts facts;
	struct plan plan;
	struct sandbox box;
	int sock; /* our end */
	int userns;
	int dpkg;
	struct stat usr; /* with child.usr: which one was made ahead */
	bool cgroup_made;
};

/* launch_plan.c */
int launch_plan(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		struct err *err);
/* The descriptor of the caller's that stands for `m`. */
int launch_source(const struct sandbox_shell *l, const struct sandbox_sources *src, const struct plan_mount *m);

/* launch_clone.c */
void launch_title(struct contain *c);
int launch_clone(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err);

#endif
