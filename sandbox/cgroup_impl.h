/* What cgroup.c, cgroup_v1.c and cgroup_v2.c share; nobody else includes it. Functions return negative errno. */
#ifndef SANDBOX_CGROUP_IMPL_H
#define SANDBOX_CGROUP_IMPL_H

#include <stdbool.h>

#include "sandbox/cgroup.h"

#define CG_LEAF "spaced-daemon" /* where the processes of the daemon go, out of the way of its groups */

enum cgroup_controller { CG_MEMORY, CG_CPU, CG_CPUACCT, CG_PIDS, CG_FREEZER, CG_BLKIO, CG_CONTROLLERS };

/* Where the trees are mounted: descriptors of the roots, -1 where there is none. */
struct cgroup_roots {
	int v1[CG_CONTROLLERS];
	int v2;
	bool v2_delegated; /* not root: `v2` is our own group, which somebody has given us */
	bool v2_io;	   /* groups of our tree have an io.max */
};

extern const struct cgroup_ops cgroup_v1_ops, cgroup_hybrid_ops, cgroup_v2_ops, cgroup_none_ops;

const struct cgroup_roots *cgroup_roots(void);
void cgroup_note_v2_io(void);
const char *cgroup_tree(void);

int cg_write(int dir, const char *file, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Writes a limit and reads through the same descriptor what the kernel made of it, a number as of cg_number(). */
int cg_set(int dir, const char *file, const char *text, uint64_t *got);
/* Reads a short file as a NUL-terminated string; the length, or negative errno. */
int cg_read(int dir, const char *file, char *dst, size_t size);
/* A file that is one number ("max" and -1: UINT64_MAX); 0 when it is not there. */
uint64_t cg_number(int dir, const char *file);
/* `text` is lines of "key number": the number behind `key`; 0 when it is not there. */
uint64_t cg_value(const char *text, const char *key);
/* The number behind `key` in a file of "key number" lines; 0 when it is not there. */
uint64_t cg_keyed(int dir, const char *file, const char *key);
/* TREE/NAME below a root, made when missing if `make`; a descriptor to read through. */
int cg_open_group(int root, const char *name, bool make);
int cg_remove_group(int root, const char *name);
/* SIGKILL to all that `dir`/cgroup.procs lists; the number of them, or negative errno. */
int cg_signal_all(int dir);
void cg_pause(void); /* a millisecond, between two looks */

int cgroup_no_page_out(const struct cgroup *cg, struct err *err);

/* The v2 tree serves hybrid hosts too. */
int cgroup_v2_open(const char *name, bool make, struct cgroup *out, struct err *err);
int cgroup_v2_freeze_begin(const struct cgroup *cg, int *events, struct err *err);
bool cgroup_v2_frozen(const struct cgroup *cg, int events, unsigned tries);
int cgroup_v2_freeze(const struct cgroup *cg, int timeout_ms, struct err *err);
int cgroup_v2_thaw(const struct cgroup *cg, struct err *err);
int cgroup_v2_kill(const struct cgroup *cg, int timeout_ms, struct err *err);
int cgroup_v2_remove(struct cgroup *cg, struct err *err);
/* Turns the controllers on for the groups of our tree; what cannot be had is left out. */
int cgroup_v2_prepare(struct err *err);
/* Whether they have it; after cgroup_host(). */
bool cgroup_v2_has(const char *controller);

#endif
