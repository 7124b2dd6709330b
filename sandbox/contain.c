/* The order of containment, and nothing else: what each step does is in the file it is named after, what each wall is
 * for in the README of this folder. Runs as pid 1 of the new namespaces, called by sandbox_start(). */
#include "sandbox/contain.h"

#include <unistd.h>

static const struct {
	const char *name;
	int (*run)(struct contain *c, struct err *err);
} order[] = {
    {"enter the cgroups", cgroup_enter},      /* first: all that follows is charged to it */
    {"descriptors", descriptors_keep},	      /* none of the caller's but what is needed here */
    {"session", session_own},		      /* nothing comes from the caller's terminal but through the launcher */
    {"wait for ids", sync_wait_ids},	      /* mapped by the parent */
    {"enter the user namespace", user_enter}, /* become its root: what is made now belongs to the range */
    {"namespaces", namespaces_finish},	      /* loopback, root of the cgroup view */
    {"keyring", keyring_fresh},		      /* no key of the caller's session */
    {"capability bounds", caps_bound},	      /* bounding set and securebits: while we still may */
    {"devices and /proc", mnt_ahead},	      /* the same for all: /dev, /proc with its masks, /tmp, /run */
    {"wait for the plan", sync_wait_plan},    /* a shell (sandbox.h) waits here; mounts received */
    {"host name", hostname_set},
    {"root file system", mnt_build},	       /* overlay root, /usr, binds */
    {"enter the root file system", mnt_enter}, /* pivot_root; the host's tree is gone */
    {"resource limits", rlimit_apply},
    {"drop to the user", user_drop},
    {"drop capabilities", caps_drop},
    {"no new privileges", no_new_privs}, /* before Landlock and seccomp, which demand it */
    {"Landlock", landlock_apply},	 /* a second, independent wall around files */
    {"wait to be let go", sync_let_go},	 /* limits are set; and the parent is alive, else nobody would ever stop us */
    {"seccomp", seccomp_apply},		 /* last: it forbids most of the above */
};

_Noreturn void contain(struct contain *c)
{
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		struct err err = ERR_INIT;

		if (order[i].run(c, &err) < 0) {
			err_prefix(&err, "%s", order[i].name);
			contain_fail(c->sock, &err);
		}
	}
	init_run(c);
}
