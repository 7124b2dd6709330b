/* The kernel's own part of a start: the same namespaces and the same mounts as sandbox_start(), step by step from the same
 * plan, and nothing else. No cgroup, no filter, no Landlock, no capability dropped, nothing verified, no error explained, no
 * pid 1 of our own. What a sandbox takes beyond this is ours. For tests/bench/start.c. */
#ifndef TESTS_BENCH_FLOOR_H
#define TESTS_BENCH_FLOOR_H

#include "sandbox/plan.h"

/* Runs argv[0] of `spec` and waits for its end; -1 with errno when a step failed. src->netns as for sandbox_start(). */
int floor_run(const struct sandbox_spec *spec, const struct sandbox_sources *src, const struct plan *plan);

#endif
