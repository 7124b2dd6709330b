/* Loads the filter, with one system call. It was compiled from the profile when Spaced was built: gen/filter.c.
 *
 * What it costs later: nothing that another filter would not. Calls that are allowed whatever their arguments are answered
 * by the kernel's own table (Linux 5.11), without running the filter. SECCOMP_FILTER_FLAG_SPEC_ALLOW is not set: since Linux
 * 5.16 a filter no longer slows a process down against Speculative Store Bypass unless the host's owner asked for that, and
 * who asked for it means programs like these. */
#include <errno.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/contain.h"

static struct sock_filter code[] = {
#include "seccomp_filter.inc"
};
static const struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};

const struct sock_fprog *seccomp_filter(void)
{
	return &program;
}

int seccomp_apply(struct contain *c, struct err *err)
{
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_set(err, errno, "load the filter");
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER)
		return err_set(err, EPERM, "the filter is not active");
	return 0;
}
