/* Limits per process, under those of the cgroup. Not among them: FSIZE, for bytes on disk are limited as a whole by the
 * volume or tmpfs they are in, and one file may be all of it (a model, a database); AS, for address space is not memory,
 * and JITs and sanitizers reserve terabytes of it. A limit is only ever lowered: to raise one takes a privilege that
 * this process no longer has. getrlimit(2). */
#include <errno.h>
#include <sys/resource.h>

#include "sandbox/contain.h"

#define DEFAULT_NOFILE 16384
/* No memory of an app on a disk, and no handler of the host's that is run as root on it (apport, systemd-coredump): 0 keeps a
 * file from being written, but only 1 keeps a pipe of kernel.core_pattern from being opened. core(5), battery B10. The
 * filter keeps it from being changed. */
#define CORE_NONE 1

static int lower(int resource, const char *name, rlim_t value, struct err *err)
{
	struct rlimit now, got;

	if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
		return err_set(err, errno, "read %s", name);
	if (now.rlim_max != RLIM_INFINITY && now.rlim_max < value)
		value = now.rlim_max;
	struct rlimit want = {value, value};
	if (setrlimit((__rlimit_resource_t)resource, &want) < 0)
		return err_set(err, errno, "set %s", name);
	if (getrlimit((__rlimit_resource_t)resource, &got) < 0 || got.rlim_max != value)
		return err_set(err, EIO, "%s was not kept", name);
	return 0;
}

int rlimit_lend_core(pid_t pid, struct err *err)
{
	const struct rlimit want = {CORE_NONE, CORE_NONE};
	struct rlimit now;

	if (prlimit(pid, RLIMIT_CORE, NULL, &now) < 0)
		return errno == EPERM ? 0 : err_set(err, errno, "read RLIMIT_CORE of the new process");
	if (now.rlim_max < CORE_NONE && prlimit(pid, RLIMIT_CORE, &want, NULL) < 0 && errno != EPERM)
		return err_set(err, errno, "lend RLIMIT_CORE");
	return 0;
}

int rlimit_apply(struct contain *c, struct err *err)
{
	const struct sandbox_limits *l = &c->spec->limits;
	const struct {
		int resource;
		const char *name;
		rlim_t value;
	} table[] = {
	    {RLIMIT_CORE, "RLIMIT_CORE", CORE_NONE},
	    {RLIMIT_NOFILE, "RLIMIT_NOFILE", l->nofile ? l->nofile : DEFAULT_NOFILE},
	    {RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 8 << 20},
	    {RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 64 << 10},
	    {RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING", 4096},
	    {RLIMIT_RTPRIO, "RLIMIT_RTPRIO", 0},
	    {RLIMIT_NICE, "RLIMIT_NICE", 0},
	};

	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (lower(table[i].resource, table[i].name, table[i].value, err) < 0)
			return -1;
	/* Counted per user namespace since 5.14, so without a cgroup it is the wall against fork bombs (G1). */
	if (!c->cgroups && l->pids && lower(RLIMIT_NPROC, "RLIMIT_NPROC", l->pids, err) < 0)
		return -1;
	return 0;
}
