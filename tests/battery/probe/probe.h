/* The attacker of the battery: `probe CASE [ARGUMENT]` tries each act of a case and prints one line per act, "reached
 * NAME" or "blocked NAME (ERRNO)". It judges nothing: tests/battery/run compares what it reaches inside a sandbox with
 * what it reaches outside, where every act has to succeed once before its failure inside counts.
 * Static, so that it needs nothing of the system that it is in. Acts are harmless where they succeed: they are tried
 * outside as root. */
#ifndef BATTERY_PROBE_H
#define BATTERY_PROBE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct probe_case {
	const char *name;
	void (*run)(void);
};
/* One table per file, ended by a NULL name. */
extern const struct probe_case fs_cases[], proc_cases[], ns_cases[], syscall_cases[], process_cases[], net_cases[],
    abuse_cases[];

extern const char *argument; /* "" without one */

/* One act; errno says why when it was not reached. */
void say(bool reached, const char *name);
/* The act in a child of its own, so that what it changes ends with it. It returns >= 0 when it succeeded. */
void in_child(const char *name, long (*act)(long), long arg);
/* A call with arguments that do no harm: any answer but "you may not" and "no such call" comes from the kernel. */
void call(const char *name, long nr, long a, long b, long c, long d, long e);
/* Something that a case in Python wants to know: printed as "fact NAME VALUE". */
__attribute__((format(printf, 2, 3))) void fact(const char *name, const char *fmt, ...);

#endif
